// SPDX-License-Identifier: MIT
// Programs that manage their memory themselves, each in its own way, and every action on them while
// they work. They check all they hold: each time they change it, and at the end.
#include "advise_torment.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace pagesift::live {

namespace {

/// 48 arrays of 1 MiB: of zeros, of contents of their own, or the same as another one's. And a
/// mapping with page tables that hold nothing most of the time.
constexpr const char* python_program = R"(
import array, mmap, random, select, sys, zlib
SIZE, SLOT = 1 << 20, 2 << 20
rng = random.Random(4711)
twin = rng.randbytes(SIZE)
def make():
    kind = rng.randrange(3)
    return bytes(SIZE) if kind == 0 else twin if kind == 1 else rng.randbytes(SIZE)
arrays, sums = [], []
for _ in range(48):
    data = make()
    arrays.append(array.array('Q', data))
    sums.append(zlib.crc32(data))
slots = mmap.mmap(-1, 9 * SLOT, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
slots.madvise(14 + 1)  # MADV_NOHUGEPAGE
checked = wrong = 0
def check(k):
    global checked, wrong
    checked += 1
    wrong += zlib.crc32(arrays[k]) != sums[k]
def visit_slot():
    global checked, wrong
    at = rng.randrange(len(slots) // 4096) * 4096
    word = rng.randbytes(64)
    checked += 1
    wrong += slots[at:at + 64] != bytes(64)
    slots[at:at + 64] = word
    for _ in range(50):
        wrong += slots[at:at + 64] != word
    slots.madvise(mmap.MADV_DONTNEED, at, 4096)
print('ready', flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    k = rng.randrange(len(arrays))
    check(k)
    data = make()
    arrays[k][:] = array.array('Q', data)
    sums[k] = zlib.crc32(data)
    for _ in range(8):
        visit_slot()
for k in range(len(arrays)):
    check(k)
print('checked', checked, 'wrong', wrong, flush=True)
)";

/// 96 buffers of 256 KiB in the same way, and objects on the heap that is collected.
constexpr const char* node_program = R"(
const WORDS = 65536, buffers = [], seeds = [], kept = new Map();
let checked = 0, wrong = 0, ended = false, turn = 1;
function word(seed, j) { return seed === 0 ? 0 : (Math.imul(j + 1, 2654435761) ^ seed) >>> 0; }
function fill(k) {
    // Zeros, something that is elsewhere as well, something of its own.
    seeds[k] = [0, 77, 1000 + turn][turn % 3];
    const b = buffers[k], s = seeds[k];
    for (let j = 0; j < WORDS; ++j) b[j] = word(s, j);
}
function check(k) {
    const b = buffers[k], s = seeds[k];
    ++checked;
    for (let j = 0; j < WORDS; ++j) if (b[j] !== word(s, j)) { ++wrong; return; }
}
for (let k = 0; k < 96; ++k, ++turn) { buffers.push(new Uint32Array(WORDS)); fill(k); }
for (let i = 0; i < 20000; ++i) kept.set('key ' + i, { i, text: 'value ' + i * 3 });
function work() {
    const k = (Math.imul(turn, 7919) >>> 0) % buffers.length;
    check(k);
    ++turn;
    fill(k);
    for (let i = turn * 37 % 19000, n = 0; n < 200; ++n, ++i) {
        const one = kept.get('key ' + i);
        ++checked;
        if (one.i !== i || one.text !== 'value ' + i * 3) ++wrong;
        kept.set('key ' + i, { i, text: 'value ' + i * 3 });
    }
    if (!ended) return setTimeout(work, 1);
    for (let i = 0; i < buffers.length; ++i) check(i);
    console.log('checked', checked, 'wrong', wrong);
    process.exit(0);
}
process.stdin.on('end', () => { ended = true; });
process.stdin.resume();
console.log('ready');
work();
)";

/// Torments a program that says "ready", ends when its input does, and then says what it found.
void check_program(const std::vector<std::string>& command) {
    Rack rack;
    if (!rack.ready()) return;
    Background program(command);
    REQUIRE(program.wait_for_line(30) == "ready");
    const auto toll = torment(program.pid());
    program.close_input();
    const auto verdict = program.wait_for_line(60);
    check_moved(toll);
    REQUIRE_MESSAGE(verdict, "it has ended without a word");
    MESSAGE(*verdict);
    unsigned long checked = 0, wrong = 1;
    CHECK(std::sscanf(verdict->c_str(), "checked %lu wrong %lu", &checked, &wrong) == 2);
    CHECK(checked > 100);
    CHECK(wrong == 0);
    CHECK(program.wait(30) == 0);
}

} // namespace

TEST_CASE("advise programs: a Python interpreter with large arrays keeps them") {
    if (!have_root()) return;
    const auto python = find_program({"/usr/bin/python3", "/usr/local/bin/python3"});
    if (!python) return skip("python3 is not installed");
    check_program({*python, "-c", python_program});
}

TEST_CASE("advise programs: Node.js keeps its buffers and objects") {
    if (!have_root()) return;
    const auto node = find_program({"/usr/bin/node", "/usr/local/bin/node"});
    if (!node) return skip("nodejs is not installed");
    // With io_uring open nothing private would be touched.
    check_program({"/usr/bin/env", "UV_USE_IO_URING=0", *node, "-e", node_program});
}

TEST_CASE("advise programs: a statically linked program that checks itself finds nothing wrong") {
    if (!have_root()) return;
    if (std::getenv("PAGESIFT_STATIC_VICTIM") == nullptr)
        return skip("no statically linked program at hand");
    check_program({program_of("PAGESIFT_STATIC_VICTIM")});
}

} // namespace pagesift::live
