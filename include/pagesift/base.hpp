// SPDX-License-Identifier: MIT
// The base room: units, half-open address ranges, errors, gaps, and text that is safe to print.
// It knows nothing of Linux, processes or pages.
//
//     AddressRange r{Address{0x1000}, Address{0x3000}};
//     r.size();                                   // Bytes{8192}
//     throw Error{ErrorKind::denied, "/proc/1/pagemap", EACCES, "needs CAP_SYS_PTRACE"};
#pragma once

#include <compare>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pagesift {

/// A number with a unit. Quantities of one unit add up; nothing converts by itself.
template <class Tag> struct Quantity {
    std::uint64_t value = 0;

    constexpr Quantity() = default;
    constexpr explicit Quantity(std::uint64_t v) : value(v) {}
    constexpr auto operator<=>(const Quantity&) const = default;
    constexpr Quantity& operator+=(Quantity other) {
        value += other.value;
        return *this;
    }
    friend constexpr Quantity operator+(Quantity a, Quantity b) {
        return Quantity{a.value + b.value};
    }
    friend constexpr Quantity operator-(Quantity a, Quantity b) {
        return Quantity{a.value - b.value};
    }
};

using Bytes = Quantity<struct BytesTag>;
using PageCount = Quantity<struct PageCountTag>;
using Pfn = Quantity<struct PfnTag>;

constexpr Bytes operator""_KiB(unsigned long long n) { return Bytes{n << 10}; }
constexpr Bytes operator""_MiB(unsigned long long n) { return Bytes{n << 20}; }
constexpr Bytes operator""_GiB(unsigned long long n) { return Bytes{n << 30}; }

/// A virtual address in the inspected process. It never becomes a pointer here.
struct Address {
    std::uint64_t value = 0;

    constexpr Address() = default;
    constexpr explicit Address(std::uint64_t v) : value(v) {}
    constexpr auto operator<=>(const Address&) const = default;
    friend constexpr Address operator+(Address a, Bytes b) { return Address{a.value + b.value}; }
    friend constexpr Bytes operator-(Address a, Address b) { return Bytes{a.value - b.value}; }
};

/// [start, end). Empty when end <= start.
struct AddressRange {
    Address start;
    Address end;

    constexpr bool operator==(const AddressRange&) const = default;
    constexpr bool empty() const { return end <= start; }
    constexpr Bytes size() const { return empty() ? Bytes{} : end - start; }
    constexpr bool contains(Address a) const { return start <= a && a < end; }
    constexpr AddressRange intersect(AddressRange other) const {
        AddressRange r{start < other.start ? other.start : start,
                       end < other.end ? end : other.end};
        return r.empty() ? AddressRange{r.start, r.start} : r;
    }
};

/// Why nothing useful can be produced.
enum class ErrorKind {
    gone,        ///< the target does not exist (any more)
    denied,      ///< a privilege is missing; the hint names it
    unsupported, ///< the kernel cannot; the hint names what could
    bad_input,   ///< a recording, expression or file that cannot be read
    usage,       ///< wrong command line
    failed,      ///< any other refusal of the operating system
};

/// The one exception of the program. Thrown where no answer is possible, caught once, in cli/run.
class Error : public std::exception {
public:
    /// @param subject what the message is about: a path, an option, a pid
    /// @param errnum errno of the failed call, or 0
    /// @param detail what went wrong; empty: the text of errnum
    Error(ErrorKind kind, const std::string& subject, int errnum, std::string hint = {},
          const std::string& detail = {});

    const char* what() const noexcept override { return message_.c_str(); }
    ErrorKind kind() const { return kind_; }
    int errnum() const { return errnum_; }
    const std::string& hint() const { return hint_; }

private:
    ErrorKind kind_;
    int errnum_;
    std::string message_;
    std::string hint_;
};

/// Something that could not be seen: which interface, where, why, and what would show it.
struct Gap {
    std::string source;                ///< interface: "kpageflags", "map_files", "contents"
    std::optional<AddressRange> range; ///< none: the whole process
    std::string reason;
    std::string remedy;      ///< empty: nothing on this machine would show it
    bool incomplete = false; ///< ranges are missing from the answer (exit code 3), not only details
    bool operator==(const Gap&) const = default;
};

/// Foreign text made safe for a terminal and for any text format: control characters, bytes that
/// are not UTF-8, and bidirectional and other invisible controls become \xNN or \u{NNNN}; the
/// backslash itself becomes \\.
std::string escape_text(std::string_view text);

/// "1.5 GiB", "12 KiB", "0". At most four characters of number.
std::string human_bytes(std::uint64_t bytes);

/// "123", "64K", "1.5G", "2MiB": bytes. Throws Error(usage) naming @p subject.
std::uint64_t parse_size(std::string_view text, std::string_view subject);

/// "7f00-7fff", "0x7f00+64K": addresses are hexadecimal, a size is decimal unless 0x-prefixed.
AddressRange parse_address_range(std::string_view text, std::string_view subject);

/// "ENOENT" for 2; "errno 999" for a number without a name.
std::string errno_name(int errnum);

} // namespace pagesift
