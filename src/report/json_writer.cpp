// SPDX-License-Identifier: MIT
#include "report/json_writer.hpp"

#include "pagesift/base.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <ostream>

namespace pagesift::report {
namespace {

bool is_plain(std::string_view text) {
    for (const char signed_or_not : text) {
        const auto c = static_cast<unsigned char>(signed_or_not);
        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\') return false;
    }
    return true;
}

} // namespace

void Output::number(std::uint64_t value) {
    if (value < 10) {
        buffer_.push_back(static_cast<char>('0' + value));
        return;
    }
    const fmt::format_int digits{value};
    buffer_.append(digits.data(), digits.size());
}

void Output::flush() {
    errno = 0;
    out_->write(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    buffer_.clear();
    out_->flush();
    if (!*out_)
        throw Error{ErrorKind::failed, "output", errno, {}, errno ? "" : "cannot be written"};
}

void append_json_text(std::string& out, std::string_view foreign) {
    if (is_plain(foreign)) {
        out.append(foreign);
        return;
    }
    for (const char c : escape_text(foreign)) {
        if (c == '"' || c == '\\') out.push_back('\\');
        out.push_back(c);
    }
}

void JsonWriter::new_line() {
    if (comma_) out_->put(',');
    out_->put('\n');
    comma_ = false;
    out_->flush_if_full();
}

void JsonWriter::key(std::string_view name) {
    separate();
    out_->put('"');
    out_->put(name);
    out_->put("\":");
    comma_ = false;
}

void JsonWriter::number(std::uint64_t value) {
    separate();
    out_->number(value);
}

void JsonWriter::number(std::int64_t value) {
    separate();
    if (value < 0) out_->put('-');
    out_->number(value < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(value)
                           : static_cast<std::uint64_t>(value));
}

void JsonWriter::number(std::optional<std::uint64_t> value) {
    if (value)
        number(*value);
    else
        null();
}

void JsonWriter::number(std::optional<std::int64_t> value) {
    if (value)
        number(*value);
    else
        null();
}

void JsonWriter::real(double value) {
    if (!std::isfinite(value)) return null();
    raw(fmt::format("{:.6g}", value));
}

void JsonWriter::boolean(std::optional<bool> value) {
    raw(!value ? "null" : *value ? "true" : "false");
}

void JsonWriter::address(std::uint64_t value) {
    std::array<char, 24> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
    separate();
    out_->put("\"0x");
    out_->put({digits.data(), static_cast<std::size_t>(end - digits.data())});
    out_->put('"');
}

void JsonWriter::address(std::optional<std::uint64_t> value) {
    if (value)
        address(*value);
    else
        null();
}

void JsonWriter::text(std::string_view foreign) {
    separate();
    scratch_.clear();
    append_json_text(scratch_, foreign);
    out_->put('"');
    out_->put(scratch_);
    out_->put('"');
}

void JsonWriter::text_or_null(std::string_view foreign) {
    if (foreign.empty())
        null();
    else
        text(foreign);
}

void JsonWriter::word(std::string_view own) {
    separate();
    out_->put('"');
    out_->put(own);
    out_->put('"');
}

void JsonWriter::raw(std::string_view json) {
    separate();
    out_->put(json);
}

} // namespace pagesift::report
