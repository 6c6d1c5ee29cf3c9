// EMU_EXPORT(symbol, launch bound or 0, kernel): a description of a kernel that Python finds in the library by its symbol.
#pragma once
#include <utility>

#include "runtime.h"

namespace emulator {

// The letter that NumPy has for a type. cuda_fp16.h and cuda_bf16.h add theirs; anything else is a struct.
template <class T> struct Letter {
  static constexpr char value = 'S';
};
#define EMU_LETTER(TYPE, LETTER) \
  template <> struct Letter<TYPE> { \
    static constexpr char value = LETTER; \
  };
EMU_LETTER(void, 'v')
EMU_LETTER(bool, '?')
EMU_LETTER(char, 'b')
EMU_LETTER(signed char, 'b')
EMU_LETTER(unsigned char, 'B')
EMU_LETTER(short, 'h')
EMU_LETTER(unsigned short, 'H')
EMU_LETTER(int, 'i')
EMU_LETTER(unsigned, 'I')
EMU_LETTER(long, 'q')
EMU_LETTER(unsigned long, 'Q')
EMU_LETTER(long long, 'q')
EMU_LETTER(unsigned long long, 'Q')
EMU_LETTER(float, 'f')
EMU_LETTER(double, 'd')

template <class T> constexpr char letter = std::is_pointer_v<T> ? 'P' : Letter<std::remove_cv_t<T>>::value;
template <class T> constexpr char element = std::is_pointer_v<T> ? letter<std::remove_cv_t<std::remove_pointer_t<T>>> : '-';

template <auto kernel> struct Description;
template <class... Parameters, void (*kernel)(Parameters...)> struct Description<kernel> {
  static constexpr char types[] = {letter<std::remove_cv_t<Parameters>>..., '\0'};
  static constexpr char elements[] = {element<std::remove_cv_t<Parameters>>..., '\0'};

  static void run(void** arguments) { call(arguments, std::index_sequence_for<Parameters...>{}); }
  template <size_t... i> static void call([[maybe_unused]] void** arguments, std::index_sequence<i...>) {
    kernel(*reinterpret_cast<std::remove_cv_t<Parameters>*>(arguments[i])...);
  }
};

}  // namespace emulator

#define EMU_EXPORT(SYMBOL, BOUND, ...) \
  extern "C" __attribute__((visibility("default"))) emulator::Kernel SYMBOL; \
  emulator::Kernel SYMBOL = {emulator::Description<&__VA_ARGS__>::run, emulator::Description<&__VA_ARGS__>::types, \
                             emulator::Description<&__VA_ARGS__>::elements, BOUND};
