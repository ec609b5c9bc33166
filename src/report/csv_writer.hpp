// SPDX-License-Identifier: MIT
// Rows as RFC 4180 describes them: CRLF line ends, unknown as an empty cell. Foreign text is
// escaped as everywhere and always quoted, so that empty text is not taken for unknown; it is not
// changed beyond that, so a name that starts with '=' still does, and a spreadsheet should be told
// to import columns as text.
#pragma once

#include "report/json_writer.hpp"

#include <fmt/format.h>

namespace pagesift::report {

class CsvWriter {
public:
    explicit CsvWriter(std::ostream& out) : out_(out) {}

    /// @p names with commas between them.
    void header(std::string_view names) {
        word(names);
        end_row();
    }
    void number(std::uint64_t value) {
        separate();
        out_.number(value);
    }
    template <class Number> void number(std::optional<Number> value) {
        if (value)
            number(std::uint64_t{*value});
        else
            empty();
    }
    void signed_number(std::optional<std::int64_t> value) {
        if (value)
            word(fmt::format("{}", *value));
        else
            empty();
    }
    void address(std::uint64_t value) { word(fmt::format("0x{:x}", value)); }
    void address(std::optional<std::uint64_t> value) {
        if (value)
            address(*value);
        else
            empty();
    }
    /// Text of our own, in which nothing needs quotes.
    void word(std::string_view own) {
        separate();
        out_.put(own);
    }
    void text(std::string_view foreign);
    void empty(std::size_t cells = 1) {
        for (std::size_t i = 0; i < cells; ++i) separate();
    }
    void end_row() {
        out_.put("\r\n");
        first_ = true;
        out_.flush_if_full();
    }
    void flush() { out_.flush(); }

private:
    void separate() {
        if (!first_) out_.put(',');
        first_ = false;
    }

    Output out_;
    bool first_ = true;
};

} // namespace pagesift::report
