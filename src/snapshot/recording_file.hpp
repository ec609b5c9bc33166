// SPDX-License-Identifier: MIT
// A recording as a file: lines with a checksum behind them, as they are or compressed. What the
// lines say is not known here.
#pragma once

#include "pagesift/snapshot.hpp"

#include <array>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace pagesift::snapshot {

inline constexpr std::string_view recording_word = "pagesift-recording";
inline constexpr unsigned recording_version = 1;

/// CRC-32 (ISO-HDLC: gzip, zlib). It finds every change of up to 32 neighbouring bits.
class Crc32 {
public:
    void add(std::string_view bytes);
    std::uint32_t value() const { return ~state_; }

private:
    std::uint32_t state_ = ~std::uint32_t{0};
};

/// Counts and sums up what is written; close() adds the last line.
class RecordingOutput {
public:
    RecordingOutput(std::ostream& out, Encoding encoding);
    ~RecordingOutput();
    /// @param lines whole lines, with their newlines
    void write(std::string_view lines);
    void close();

private:
    struct Compressor;
    void put(std::string_view bytes);

    std::ostream& out_;
    std::unique_ptr<Compressor> compressor_;
    Crc32 crc_;
    std::uint64_t lines_ = 0;
};

/// The lines of a recording between the first and the last one, which it checks itself.
class RecordingLines {
public:
    /// @p bytes must outlive this. Throws Error(bad_input): not a recording, a newer version.
    RecordingLines(std::string_view bytes, std::string subject);
    ~RecordingLines();

    /// The next line, without its newline; valid until the next call. Nothing once the last line
    /// was reached and all that was read agrees with it. Throws Error(bad_input).
    std::optional<std::string_view> next();

    [[noreturn]] void refuse(std::string_view what) const; ///< names the line
    std::size_t number() const { return number_; }

private:
    struct Decompressor;
    std::optional<std::string_view> take_line();
    bool refill();
    void check_head();
    void check_end(std::string_view line);

    std::string subject_;
    std::unique_ptr<Decompressor> decompressor_;
    std::string buffer_;      ///< decompressed text; unused for text
    std::string_view unread_; ///< of buffer_, or of the text itself
    Crc32 crc_;
    std::size_t number_ = 0;
};

} // namespace pagesift::snapshot
