"""A small strict stand-in for CuPy on a machine without a GPU.   install() puts it at sys.modules["cupy"].

 * arrays are a separate type: no implicit conversion to NumPy (TypeError, as in CuPy), no mixing with numpy.ndarray,
   reductions and full indexing give 0-d device arrays, cupy.empty() is NaN filled
 * only names that exist in the real cupy (cupy_names.json, frozen from cupy-cuda13x 14.2.0 by freeze_api()) can be used
 * RawModule/RawKernel compile the CUDA source for the CPU (cuemu) and run it with the given launch geometry; argument
   count, pointer element types, scalar types (a Python float is 8 bytes!), bounds, shared memory limits, launch bounds
   and cooperative launch are checked; every launch gets another random schedule
"""
import inspect, json, os, sys, types
import numpy as np
from minirnn.kernels.emulator.build import compile as _compile, EmulatorError as EmuError
HERE = os.path.dirname(os.path.abspath(__file__))
API = json.load(open(HERE + "/cupy_names.json"))
CFG = types.SimpleNamespace(seed=2, launches=0, syncs=0, sms=40, smem_optin=101376, sanitize=os.environ.get("CUEMU_SAN", ""), log=[])
_BAD = (str, bytes, list, tuple, dict)

def freeze_api(path=HERE + "/cupy_names.json"):
    """run where the real cupy can be imported (no driver needed)"""
    import cupy
    kind = lambda o: "module" if inspect.ismodule(o) else "class" if inspect.isclass(o) else "ufunc" if type(o).__name__ == "ufunc" else "func" if callable(o) else "const"
    def entry(o):
        e = {"kind": kind(o)}
        if e["kind"] == "func":
            try: e["sig"] = list(inspect.signature(o).parameters)
            except (ValueError, TypeError): pass
        return e
    d = {"version": cupy.__version__, "namespace": {n: entry(getattr(cupy, n)) for n in sorted(dir(cupy)) if n[0] != "_"}, "ndarray": sorted(dir(cupy.ndarray))}
    for s in ("linalg", "random", "fft", "cuda", "testing"): d[s] = sorted(n for n in dir(getattr(cupy, s)) if n[0] != "_")
    json.dump(d, open(path, "w"), indent=0)

def _unwrap(x):
    if isinstance(x, ndarray): return x._a
    if isinstance(x, np.ndarray): raise TypeError(f"Unsupported type {np.ndarray}")
    if isinstance(x, (list, tuple)): return type(x)(_unwrap(i) for i in x)
    if isinstance(x, dict): return {k: _unwrap(v) for k, v in x.items()}
    return x
def _wrap(r):
    if isinstance(r, (np.ndarray, np.generic)): return ndarray._of(np.asarray(r))
    if isinstance(r, tuple): return tuple(map(_wrap, r))
    if isinstance(r, list): return [_wrap(i) for i in r]
    return r

class ndarray:
    __slots__ = ("_a", "__weakref__")
    __hash__ = None
    __array_priority__ = 100
    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None: raise NotImplementedError
        self._a = _poison(np.empty(shape, dtype, order))
    @classmethod
    def _of(cls, a):
        if a.dtype.kind not in "biufc" and a.dtype.name != "bfloat16": raise TypeError(f"Unsupported dtype {a.dtype}")
        self = object.__new__(cls); self._a = a; return self
    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")
    def __array_ufunc__(self, ufunc, method, *args, **kw):
        if method != "__call__": return NotImplemented
        return getattr(module, ufunc.__name__)(*args, **{k: (v[0] if k == "out" and isinstance(v, tuple) else v) for k, v in kw.items()})
    def __array_function__(self, func, types_, args, kw):
        return getattr(module, func.__name__)(*args, **kw)
    def get(self, stream=None, order="C", out=None, blocking=True): CFG.syncs += 1; return self._a.copy(order)
    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray): raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self._a.dtype or arr.shape != self._a.shape: raise (TypeError if arr.dtype != self._a.dtype else ValueError)(f"{arr.dtype} {arr.shape} set to {self.dtype} {self.shape}")
        self._a[...] = arr
    dtype = property(lambda s: s._a.dtype); shape = property(lambda s: s._a.shape, lambda s, v: setattr(s._a, "shape", v)); ndim = property(lambda s: s._a.ndim)
    size = property(lambda s: s._a.size); nbytes = property(lambda s: s._a.nbytes); itemsize = property(lambda s: s._a.itemsize); strides = property(lambda s: s._a.strides)
    flags = property(lambda s: s._a.flags); T = property(lambda s: _wrap(s._a.T)); base = property(lambda s: s._a.base)
    data = property(lambda s: types.SimpleNamespace(ptr=s._a.ctypes.data)); device = property(lambda s: cuda.Device(0))
    def __getitem__(self, i): return _wrap(self._a[_unwrap(i)])
    def __setitem__(self, i, v): self._a[_unwrap(i)] = _unwrap(v)
    def __len__(self): return len(self._a)
    def __iter__(self): return (_wrap(x) for x in self._a)
    def __repr__(self): return "emulated." + repr(self._a)
    def __getattr__(self, n):
        if n not in API["ndarray"]: raise AttributeError(f"'cupy.ndarray' object has no attribute {n!r}")
        m = getattr(self._a, n)
        return (lambda *a, **k: _wrap(m(*_unwrap(a), **_unwrap(k)))) if callable(m) else _wrap(m)
def _conv(n):
    def f(self): CFG.syncs += 1; return getattr(self._a, n)()
    return f
for _n in ("__bool__", "__int__", "__float__", "__index__", "__complex__"): setattr(ndarray, _n, _conv(_n))
def _bin(n):
    def f(self, o):
        if isinstance(o, _BAD): raise TypeError(f"Unsupported type {type(o)}")
        r = getattr(self._a, n)(_unwrap(o))
        return r if r is NotImplemented else (self if n.startswith("__i") and r is self._a else _wrap(r))
    return f
for _n in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    for _p in ("", "r", "i"): setattr(ndarray, f"__{_p}{_n}__", _bin(f"__{_p}{_n}__"))
for _n in "lt le gt ge eq ne".split(): setattr(ndarray, f"__{_n}__", _bin(f"__{_n}__"))
for _n in ("neg", "pos", "abs", "invert"): setattr(ndarray, f"__{_n}__", (lambda n: lambda s: _wrap(getattr(s._a, n)()))(f"__{_n}__"))

def _poison(a):
    if a.dtype.kind in "fc": a.fill(np.nan)
    elif a.size: a.view(np.uint8).fill(0xC5)
    return a
def asarray(a, dtype=None, order=None, *, blocking=False):
    return ndarray._of(np.array(a._a if isinstance(a, ndarray) else a, dtype=dtype, order=order or "K")) if not isinstance(a, ndarray) or (dtype and np.dtype(dtype) != a.dtype) else a
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False): return ndarray._of(np.array(_unwrap(obj) if not isinstance(obj, np.ndarray) else obj, dtype=dtype, order=order, ndmin=ndmin))
def asnumpy(a, stream=None, order="C", out=None, *, blocking=True): return a.get() if isinstance(a, ndarray) else np.asarray(a)
def empty(shape, dtype=float, order="C"): return ndarray(shape, dtype, order=order)
def empty_like(p, dtype=None, order="K", subok=None, shape=None): return ndarray(shape or p.shape, dtype or p.dtype)
def get_array_module(*a): return module if any(isinstance(x, ndarray) for x in a) else np

class RawModule:
    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", translate_cucomplex=False, enable_cooperative_groups=False, name_expressions=None, jitify=None):
        if not isinstance(options, tuple): raise TypeError("options must be a tuple")
        self.code, self.options, self.coop, self.names = code, options, enable_cooperative_groups, tuple(name_expressions or ())
        for o in options:
            if o.startswith(("--use_fast_math", "-use_fast_math")): CFG.log.append("fast math is not emulated")
        self._lib = None
    def compile(self, log_stream=None):
        if self._lib is None: self._lib = _compile(self.code, names=self.names, defines=[o[2:] for o in self.options if o.startswith("-D")])
        return self._lib
    def get_function(self, name):
        if name not in self.compile(): raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return _Function(self, name)

class _Function:
    def __init__(self, mod, name):
        self._mod, self.name, self._k, self.max_dynamic_shared_size_bytes = mod, name, mod._lib[name], 49152
        self._bound = self._k.bound
    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        if not all(isinstance(t, tuple) and all(isinstance(i, (int, np.integer)) for i in t) for t in (grid, block)): raise TypeError("grid and block must be tuples of int")
        grid, block = ((tuple(int(i) for i in t) + (1, 1))[:3] for t in (grid, block))
        if min(grid + block) <= 0: raise EmuError(f"{self.name}: empty launch {grid} {block} (CuPy would launch 1 instead of 0)")
        if self._bound and np.prod(block) > self._bound: raise EmuError(f"{self.name}: {np.prod(block)} threads per block, __launch_bounds__({self._bound})")
        if shared_mem > self.max_dynamic_shared_size_bytes or shared_mem > CFG.smem_optin: raise EmuError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory, limit {min(self.max_dynamic_shared_size_bytes, CFG.smem_optin)} (set max_dynamic_shared_size_bytes)")
        if self._mod.coop and np.prod(grid) > CFG.sms * max(1, min(32, 2048 // np.prod(block), CFG.smem_optin // max(shared_mem, 1))): raise EmuError(f"{self.name}: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: {np.prod(grid)} blocks do not fit on {CFG.sms} SMs at once")
        conv = []
        for i, (a, c) in enumerate(zip(args, self._k.types)):
            if isinstance(a, ndarray):
                if c != "P": raise EmuError(f"{self.name} argument {i}: array for a scalar parameter '{c}'")
                conv.append(a._a); continue
            if isinstance(a, np.ndarray): raise TypeError(f"Unsupported type {type(a)}")
            if isinstance(a, bool): a = np.bool_(a)
            elif isinstance(a, int): a = np.int64(a)            # what CuPy does
            elif isinstance(a, float): a = np.float64(a)
            if c == "P" and not isinstance(a, np.generic): raise EmuError(f"{self.name} argument {i}: {type(a)} for a pointer")
            conv.append(a)
        if len(args) != len(self._k.types): raise EmuError(f"{self.name} takes {len(self._k.types)} arguments, got {len(args)}")
        CFG.launches += 1; CFG.log.append((self.name, grid, block, shared_mem))
        self._k(grid, block, conv, shared_memory=shared_mem, cooperative=self._mod.coop, seed=CFG.seed + CFG.launches if CFG.seed >= 2 else CFG.seed, flush=False)

class RawKernel(_Function):
    def __init__(self, code, name, options=(), backend="nvrtc", *, translate_cucomplex=False, enable_cooperative_groups=False, jitify=None):
        m = RawModule(code=code, options=options, enable_cooperative_groups=enable_cooperative_groups); m.compile(); super().__init__(m, name)

class _Dev:
    def __init__(self, i=0): self.id = i
    attributes = property(lambda s: {"MultiProcessorCount": CFG.sms, "MaxSharedMemoryPerBlockOptin": CFG.smem_optin, "CooperativeLaunch": 1, "WarpSize": 32, "MaxThreadsPerBlock": 1024})
    compute_capability = "86"
    def synchronize(self): CFG.syncs += 1
    def use(self): return self
    def __enter__(self): return self
    def __exit__(self, *a): pass
class _Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False): self.ptr = 0
    def synchronize(self): CFG.syncs += 1
    def use(self): return self
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def record(self, e=None): return e or _Event()
_Stream.null = _Stream()
class _Event:
    def __init__(self, *a, **k): pass
    def record(self, stream=None): pass
    def synchronize(self): CFG.syncs += 1

class _NS(types.ModuleType):
    def __init__(self, name, names, real, own): super().__init__(name); self.__dict__.update(own); self.__dict__.update(_names=names, _real=real)
    def __getattr__(self, n):
        if n.startswith("__") or n not in self._names: raise AttributeError(f"module {self.__name__!r} has no attribute {n!r}")
        o = getattr(self._real, n, None)
        if o is None: raise NotImplementedError(f"{self.__name__}.{n} exists in CuPy, but not in emulated")
        if not callable(o) or isinstance(o, type): return o
        sig = self._names[n].get("sig") if isinstance(self._names, dict) else None
        def f(*a, **k):
            if sig is not None and not {"kwargs", "kwds", "args"} & set(sig):
                if bad := [x for x in k if x not in sig]: raise TypeError(f"{self.__name__}.{n}() got an unexpected keyword argument {bad[0]!r}")
                if len(a) > len(sig): raise TypeError(f"{self.__name__}.{n}() takes {len(sig)} positional arguments but {len(a)} were given")
            out = k.get("out"); r = o(*_unwrap(a), **_unwrap(k))
            return out if isinstance(out, ndarray) else _wrap(r)
        f.__name__ = n; setattr(self, n, f)
        return f
runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, deviceSynchronize=lambda: None, runtimeGetVersion=lambda: 13020, driverGetVersion=lambda: 13020)
cuda = _NS("cupy.cuda", dict.fromkeys(API["cuda"], {}), types.SimpleNamespace(), dict(Device=_Dev, Stream=_Stream, Event=_Event, runtime=runtime, is_available=lambda: True, get_elapsed_time=lambda a, b: 0.0, get_current_stream=lambda: _Stream.null))
module = _NS("cupy", API["namespace"], np, dict(__version__=API["version"] + "+fake", __file__=__file__, ndarray=ndarray, asarray=asarray, ascontiguousarray=lambda a, dtype=None: ndarray._of(np.ascontiguousarray(a._a if isinstance(a, ndarray) else a, dtype)),
    array=array, asnumpy=asnumpy, empty=empty, empty_like=empty_like, get_array_module=get_array_module, RawModule=RawModule, RawKernel=RawKernel, cuda=cuda,
    linalg=_NS("cupy.linalg", dict.fromkeys(API["linalg"], {}), np.linalg, {}), random=_NS("cupy.random", dict.fromkeys(API["random"], {}), np.random, {})))
def __getattr__(n): return getattr(module, n)
def install(): sys.modules["cupy"] = module; sys.modules["cupy.cuda"] = cuda; return module
