// SPDX-License-Identifier: MIT
#include "snapshot/recording_file.hpp"

#include "snapshot/recording_text.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <new>
#include <ostream>
#include <vector>
#include <zstd.h>

namespace pagesift::snapshot {
namespace {

constexpr std::string_view zstd_magic = "\x28\xb5\x2f\xfd";
/// 8 MiB: four times what level 3 uses, and a bound on the memory that a file can ask for.
constexpr int window_log = 23;
constexpr int compression_level = 3;

/// Text that a compressed recording may unpack to. Page tables of real processes pack 3 to 100
/// times, and a small file may be one long repetition; beyond both, it was made to exhaust memory.
constexpr std::uint64_t unpack_base = 64 << 20;
constexpr std::uint64_t unpack_factor = 128;

/// No line that is written comes near: the longest hold one name.
constexpr std::size_t longest_line = 1 << 20;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit)
            value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0u);
        table[i] = value;
    }
    return table;
}
constexpr auto crc_table = make_crc_table();

} // namespace

void Crc32::add(std::string_view bytes) {
    for (const char c : bytes)
        state_ = crc_table[(state_ ^ static_cast<unsigned char>(c)) & 0xff] ^ (state_ >> 8);
}

// ---- Writing -----------------------------------------------------------------------------------

struct RecordingOutput::Compressor {
    ZSTD_CCtx* context = ZSTD_createCCtx();
    std::vector<char> buffer = std::vector<char>(ZSTD_CStreamOutSize());
    Compressor() {
        if (!context) throw std::bad_alloc{};
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, compression_level);
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    }
    Compressor(const Compressor&) = delete;
    Compressor& operator=(const Compressor&) = delete;
    ~Compressor() { ZSTD_freeCCtx(context); }

    template <class Put> void run(std::string_view bytes, ZSTD_EndDirective end, Put&& put) {
        ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
        for (bool more = true; more;) {
            ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
            const std::size_t left = ZSTD_compressStream2(context, &out, &in, end);
            if (ZSTD_isError(left))
                throw Error{ErrorKind::failed, "recording", 0, "", ZSTD_getErrorName(left)};
            put(std::string_view{buffer.data(), out.pos});
            more = end == ZSTD_e_end ? left != 0 : in.pos < in.size;
        }
    }
};

RecordingOutput::RecordingOutput(std::ostream& out, Encoding encoding) : out_(out) {
    if (encoding == Encoding::zstd) compressor_ = std::make_unique<Compressor>();
}

RecordingOutput::~RecordingOutput() = default;

void RecordingOutput::put(std::string_view bytes) {
    errno = 0;
    if (out_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()))) return;
    throw Error{ErrorKind::failed, "recording", errno, "", errno == 0 ? "cannot be written" : ""};
}

void RecordingOutput::write(std::string_view lines) {
    crc_.add(lines);
    lines_ += static_cast<std::uint64_t>(std::count(lines.begin(), lines.end(), '\n'));
    if (!compressor_)
        put(lines);
    else
        compressor_->run(lines, ZSTD_e_continue, [&](std::string_view b) { put(b); });
}

void RecordingOutput::close() {
    write(fmt::format("end {} {:08x}\n", lines_ + 1, crc_.value()));
    if (compressor_) compressor_->run({}, ZSTD_e_end, [&](std::string_view b) { put(b); });
    out_.flush();
    put({});
}

// ---- Reading -----------------------------------------------------------------------------------

struct RecordingLines::Decompressor {
    ZSTD_DCtx* context = ZSTD_createDCtx();
    ZSTD_inBuffer in;
    std::uint64_t produced = 0;
    std::uint64_t allowed;
    bool finished = false;

    explicit Decompressor(std::string_view bytes)
        : in{bytes.data(), bytes.size(), 0}, allowed(unpack_base + unpack_factor * bytes.size()) {
        if (!context) throw std::bad_alloc{};
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, window_log);
    }
    Decompressor(const Decompressor&) = delete;
    Decompressor& operator=(const Decompressor&) = delete;
    ~Decompressor() { ZSTD_freeDCtx(context); }
};

RecordingLines::RecordingLines(std::string_view bytes, std::string subject)
    : subject_(std::move(subject)) {
    if (bytes.starts_with(zstd_magic))
        decompressor_ = std::make_unique<Decompressor>(bytes);
    else
        unread_ = bytes;
    check_head();
}

RecordingLines::~RecordingLines() = default;

void RecordingLines::refuse(std::string_view what) const {
    throw Error{ErrorKind::bad_input, subject_, 0, "", fmt::format("line {}: {}", number_, what)};
}

/// Decompresses some more; false at the end of the file.
bool RecordingLines::refill() {
    if (!decompressor_ || decompressor_->finished) return false;
    Decompressor& d = *decompressor_;
    buffer_.erase(0, buffer_.size() - unread_.size());
    const std::size_t kept = buffer_.size();
    buffer_.resize(kept + ZSTD_DStreamOutSize());
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), kept};
    while (out.pos == kept && !d.finished) {
        const std::size_t before = d.in.pos;
        const std::size_t left = ZSTD_decompressStream(d.context, &out, &d.in);
        if (ZSTD_isError(left))
            refuse(fmt::format("the compressed data behind it are damaged ({})",
                               ZSTD_getErrorName(left)));
        d.finished = left == 0;
        if (!d.finished && out.pos == kept && d.in.pos == before) break;
    }
    d.produced += out.pos - kept;
    buffer_.resize(out.pos);
    unread_ = buffer_;
    if (d.produced > d.allowed)
        refuse(fmt::format("unpacks to more than {}, which no recording of {} does",
                           human_bytes(d.allowed), human_bytes(d.in.size)));
    if (d.finished && d.in.pos < d.in.size) refuse("there is more behind the compressed data");
    return out.pos > kept;
}

std::optional<std::string_view> RecordingLines::take_line() {
    std::size_t searched = 0;
    while (true) {
        const auto end = unread_.substr(searched).find('\n');
        if (end != unread_.npos) {
            const auto line = unread_.substr(0, searched + end);
            unread_.remove_prefix(line.size() + 1);
            ++number_;
            return line;
        }
        searched = unread_.size();
        if (searched > longest_line || !refill()) return {};
    }
}

void RecordingLines::check_head() {
    const auto line = take_line();
    const auto not_one = [&](const char* hint) {
        throw Error{ErrorKind::bad_input, subject_, 0, hint, "not a recording of pagesift"};
    };
    if (!line && decompressor_ && !decompressor_->finished && unread_.empty())
        refuse("the file is cut short");
    std::string_view rest = line.value_or("");
    if (take_field(rest) != recording_word) not_one("");
    const auto version = parse_number<unsigned>(rest);
    if (!version || *version == 0) not_one("its first line names no version");
    if (*version > recording_version)
        throw Error{ErrorKind::bad_input, subject_, 0, "read it with a newer pagesift",
                    fmt::format("a recording of format {}, of which this pagesift knows 1 to {}",
                                *version, recording_version)};
    crc_.add(*line);
    crc_.add("\n");
}

void RecordingLines::check_end(std::string_view line) {
    const std::string expected = fmt::format("end {} {:08x}", number_, crc_.value());
    if (line != expected)
        refuse(fmt::format("the file is damaged: its end says '{}' where '{}' would be right",
                           escape_text(line.substr(0, 80)), expected));
    // The frame must be complete, too: its own checksum comes last.
    if (!unread_.empty() || refill()) refuse("there is more behind the end");
    if (decompressor_ && !decompressor_->finished) refuse("the file is cut short behind this line");
}

std::optional<std::string_view> RecordingLines::next() {
    const auto line = take_line();
    if (!line) {
        if (unread_.size() > longest_line) refuse("a line without end follows");
        throw Error{ErrorKind::bad_input, subject_, 0, "record it again",
                    fmt::format("the file is cut short: it stops behind line {}, without its end",
                                number_)};
    }
    if (line->starts_with("end ")) {
        check_end(*line);
        return {};
    }
    crc_.add(*line);
    crc_.add("\n");
    return line;
}

bool is_recording(std::string_view head) {
    return head.starts_with(zstd_magic) || (head.starts_with(recording_word) &&
                                            head.substr(recording_word.size()).starts_with(" "));
}

} // namespace pagesift::snapshot
