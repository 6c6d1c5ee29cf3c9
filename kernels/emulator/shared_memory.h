// The shared memory of blocks, and the zones around its arrays. Of runtime.cpp alone.
#pragma once
#include "state.h"

namespace emulator {

// Shared memory of a block: [zone, array, zone, array, .. zone, dynamic array, zone]. All of it starts as 0xFF, which is NaN in any
// precision.

static char* dynamic_begin(const Block& block) {
  return block.arena + launch->arena_bytes - ZONE - (launch->options->dynamic_shared + 15) / 16 * 16;
}

void* dynamic_shared() { return dynamic_begin(*current->block); }

void* shared_array(const SharedArray& declared, size_t bytes, size_t alignment) {
  Block& block = *current->block;
  for (size_t i = 0; i < block.array_count; ++i)
    if (block.arrays[i].declared == &declared) return block.arena + block.arrays[i].begin;
  block.declared_bytes = (block.declared_bytes + alignment - 1) / alignment * alignment + bytes;
  if (block.declared_bytes > STATIC_SHARED || block.array_count == MOST_ARRAYS)
    fail("%s:%d: with %s a block declares %zu bytes of shared memory, at most %zu may be declared", declared.place.file,
         declared.place.line, declared.name, block.declared_bytes, STATIC_SHARED);
  const size_t total = block.declared_bytes + launch->options->dynamic_shared, most = launch->options->most_shared;
  if (total > most) fail("a block takes %zu bytes of shared memory, declared and dynamic, this device has %zu", total, most);
  const size_t aligned = alignment < 16 ? 16 : alignment, begin = (block.used + ZONE + aligned - 1) / aligned * aligned;
  block.used = begin + bytes;
  block.arrays[block.array_count++] = {&declared, begin, bytes};
  if (address_sanitizer()) __asan_unpoison_memory_region(block.arena + begin, bytes);
  return block.arena + begin;
}

static bool all_ones(const char* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    if (begin[i] != char(0xFF)) return false;
  return true;
}

static void check_zones(const Block& block) {
  if (address_sanitizer()) return;  // it saw every access
  const size_t near = ZONE - 16;    // an alignment of at most 16 bytes may begin an array later
  for (size_t i = 0; i < block.array_count && !launch->failed; ++i) {
    const SharedMemory& array = block.arrays[i];
    if (!all_ones(block.arena + array.begin - near, near) || !all_ones(block.arena + array.begin + array.bytes, near))
      report("a write outside of __shared__ %s (%s:%d) in block (%u, %u, %u)", array.declared->name, array.declared->place.file,
             array.declared->place.line, block.index.x, block.index.y, block.index.z);
  }
  const char* dynamic = dynamic_begin(block);
  const size_t bytes = launch->options->dynamic_shared;
  if (!launch->failed && (!all_ones(dynamic - near, near) || !all_ones(dynamic + bytes, near)))
    report("a write outside of the %zu bytes of dynamic shared memory in block (%u, %u, %u)", bytes, block.index.x, block.index.y,
           block.index.z);
}

}  // namespace emulator
