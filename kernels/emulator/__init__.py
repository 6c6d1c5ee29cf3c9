"""CUDA on a CPU: the `.cu` files of this package, compiled by the C++ compiler, and a strict stand-in for CuPy. README.md explains both."""
