// SPDX-License-Identifier: MIT
// Writes JSON straight into a buffer, because a process may have 40,000 mappings of 30 fields.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

namespace pagesift::report {

/// A buffered stream. Throws Error(failed) when the stream refuses what it is given.
class Output {
public:
    explicit Output(std::ostream& out) : out_(&out) {}
    void put(char c) { buffer_.push_back(c); }
    void put(std::string_view text) { buffer_.append(text); }
    void number(std::uint64_t value);
    void flush_if_full() {
        if (buffer_.size() >= buffer_bytes) flush();
    }
    void flush();

private:
    static constexpr std::size_t buffer_bytes = std::size_t{1} << 16;
    std::ostream* out_;
    std::string buffer_;
};

/// Appends the inside of a JSON string (without its quotes): @p foreign goes through escape_text
/// first, so that the result is valid UTF-8 and has no control characters.
void append_json_text(std::string& out, std::string_view foreign);

/// Commas are put where they belong; balancing and keys are the caller's duty.
class JsonWriter {
public:
    explicit JsonWriter(Output& out) : out_(&out) {}

    void begin_object() { open('{'); }
    void end_object() { close('}'); }
    void begin_array() { open('['); }
    void end_array() { close(']'); }
    /// Starts a new line before the next member or element.
    void new_line();
    /// @p name is one of our own words: nothing in it needs escaping.
    void key(std::string_view name);

    void null() { raw("null"); }
    void number(std::uint64_t value);
    void number(std::int64_t value);
    void number(std::optional<std::uint64_t> value);
    void number(std::optional<std::int64_t> value);
    void real(double value);
    void boolean(std::optional<bool> value);
    void address(std::uint64_t value); ///< "0x7f0000001000"
    void address(std::optional<std::uint64_t> value);
    void text(std::string_view foreign);
    void text_or_null(std::string_view foreign);
    void word(std::string_view own); ///< a string that needs no escaping
    void raw(std::string_view json); ///< one complete value

    template <class Value> void field(std::string_view name, Value value) {
        key(name);
        number(value);
    }

    /// "name": [{…}, {…}]: an object a value, with the members that write(*this, value) adds.
    template <class Values, class Write>
    void list(std::string_view name, const Values& values, Write&& write) {
        key(name);
        begin_array();
        for (const auto& value : values) {
            begin_object();
            write(*this, value);
            end_object();
        }
        end_array();
    }
    /// The same with each on a line of its own, and the name too.
    template <class Values, class Write>
    void lines(std::string_view name, const Values& values, Write&& write) {
        new_line();
        key(name);
        begin_array();
        for (const auto& value : values) line([&] { write(*this, value); });
        end_array();
    }
    /// An object on a line of its own.
    template <class Write> void line(Write&& write) {
        new_line();
        begin_object();
        write();
        end_object();
    }

private:
    void separate() {
        if (comma_) out_->put(',');
        comma_ = true;
    }
    void open(char c) {
        separate();
        out_->put(c);
        comma_ = false;
    }
    void close(char c) {
        out_->put(c);
        comma_ = true;
    }

    Output* out_;
    bool comma_ = false;
    std::string scratch_;
};

/// A line of ndjson: an object that stands alone, with what write(json) adds behind what it is.
template <class Write>
void write_line(Output& out, std::string_view schema, std::string_view record, Write&& write) {
    JsonWriter json{out};
    json.begin_object();
    json.key("schema");
    json.word(schema);
    json.key("record");
    json.word(record);
    write(json);
    json.end_object();
    out.put('\n');
    out.flush_if_full();
}

} // namespace pagesift::report
