// SPDX-License-Identifier: MIT
#include "error_of.hpp"

#include <cerrno>
#include <doctest/doctest.h>

using namespace pagesift;
using namespace std::string_literals;

TEST_CASE("escape: printable text in any script stays as it is") {
    CHECK(escape_text("/usr/bin/grüße 漢字 🙂") == "/usr/bin/grüße 漢字 🙂");
    CHECK(escape_text("") == "");
}

TEST_CASE("escape: control characters and the backslash become visible") {
    CHECK(escape_text("a\nb\tc\x7f") == "a\\x0ab\\x09c\\x7f");
    CHECK(escape_text("\x1b[31mred") == "\\x1b[31mred");
    CHECK(escape_text("\0x"s) == "\\x00x");
    CHECK(escape_text("a\\nb") == "a\\\\nb");
}

TEST_CASE("escape: bytes that are no UTF-8 are shown one by one") {
    CHECK(escape_text("\xff\xfe") == "\\xff\\xfe");
    CHECK(escape_text("a\xc3") == "a\\xc3");                          // cut short
    CHECK(escape_text("\xc0\x80") == "\\xc0\\x80");                   // overlong NUL
    CHECK(escape_text("\xed\xa0\x80") == "\\xed\\xa0\\x80");          // surrogate
    CHECK(escape_text("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80"); // above U+10FFFF
    CHECK(escape_text("\xe2\x28\xa1") == "\\xe2(\\xa1");
}

TEST_CASE("escape: invisible and bidirectional characters become visible") {
    // NOLINTBEGIN(misc-misleading-bidirectional): that is what is tested
    CHECK(escape_text("a\u202eb") == "a\\u{202e}b");
    CHECK(escape_text("\u200b") == "\\u{200b}");
    CHECK(escape_text("\ufeffx") == "\\u{feff}x");
    CHECK(escape_text("\u0085") == "\\u{0085}");
    CHECK(escape_text("\u2066") == "\\u{2066}");
    // NOLINTEND(misc-misleading-bidirectional)
}

TEST_CASE("escape: what comes out never holds a control character, whatever went in") {
    for (int first = 0; first < 256; ++first)
        for (int second = 0; second < 256; ++second) {
            const std::string text{static_cast<char>(first), static_cast<char>(second)};
            for (const char c : escape_text(text)) {
                const auto byte = static_cast<unsigned char>(c);
                if (byte < 0x20 || byte == 0x7f) FAIL("byte ", first, " then ", second);
            }
        }
}

TEST_CASE("human bytes: at most four characters of number, and the unit") {
    CHECK(human_bytes(0) == "0");
    CHECK(human_bytes(1) == "1 B");
    CHECK(human_bytes(999) == "999 B");
    CHECK(human_bytes(4096) == "4 KiB");
    CHECK(human_bytes(1536) == "1.5 KiB");
    CHECK(human_bytes(std::uint64_t{3} << 29) == "1.5 GiB");
    CHECK(human_bytes(std::uint64_t{1} << 40) == "1 TiB");
    CHECK(human_bytes(~std::uint64_t{0}) == "16 EiB");
    for (std::uint64_t bytes = 1; bytes < (std::uint64_t{1} << 62); bytes += bytes / 7 + 1)
        CHECK(human_bytes(bytes).find(' ') <= 4);
}

TEST_CASE("error: the message is subject, cause and symbolic errno, with the hint apart") {
    const Error error{ErrorKind::denied, "proc/412/pagemap", EACCES, "needs CAP_SYS_PTRACE"};
    CHECK(std::string{error.what()} == "proc/412/pagemap: permission denied (EACCES)");
    CHECK(error.hint() == "needs CAP_SYS_PTRACE");
    CHECK(error.errnum() == EACCES);
    CHECK(error.kind() == ErrorKind::denied);
}

TEST_CASE("error: without an errno the detail stands alone, and a subject is escaped") {
    const Error error{ErrorKind::bad_input, "a\nb", 0, "", "not a recording"};
    CHECK(std::string{error.what()} == "a\\x0ab: not a recording");
    const Error both{ErrorKind::failed, "x", EIO, "", "cannot be read"};
    CHECK(std::string{both.what()} == "x: cannot be read (EIO)");
}

TEST_CASE("errno name: unknown numbers keep their number") {
    CHECK(errno_name(ENOENT) == "ENOENT");
    CHECK(errno_name(99999) == "errno 99999");
}
