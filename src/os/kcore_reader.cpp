// SPDX-License-Identifier: MIT
#include "os/kcore_reader.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <limits>
#include <unistd.h>

namespace pagesift::os {
namespace {

constexpr const char* subject = "proc/kcore";
constexpr std::uint64_t last_offset = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t longest_piece = 4096;
// Far more than a kernel writes: its own task_struct is the largest part.
constexpr std::uint64_t most_note_bytes = 1 << 20;

static_assert(sizeof(Elf64_Ehdr) == elf_header_bytes);

Error damaged(const std::string& what) { return Error{ErrorKind::bad_input, subject, 0, "", what}; }

/// A structure at @p offset of @p bytes.
template <class T> T structure_at(std::span<const std::byte> bytes, std::size_t offset) {
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T))
        throw damaged("it ends within its headers");
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

/// As much as the file has of what was asked for.
std::vector<std::byte> read_bytes(int fd, std::uint64_t offset, std::size_t bytes) {
    std::vector<std::byte> out(bytes);
    std::size_t done = 0;
    while (done < bytes) {
        const auto n =
            ::pread(fd, out.data() + done, bytes - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += static_cast<std::size_t>(n);
    }
    out.resize(done);
    return out;
}

KcoreSegment parse_segment(const Elf64_Phdr& header) {
    const std::uint64_t bytes = std::min(header.p_filesz, header.p_memsz);
    // An end of 0 would be the end of the address space; its last page is no memory.
    if (header.p_vaddr > std::numeric_limits<std::uint64_t>::max() - bytes)
        throw damaged("a segment goes beyond the last address");
    if (header.p_offset > last_offset || bytes > last_offset - header.p_offset)
        throw damaged("a segment lies beyond any file's end");
    return {header.p_vaddr, header.p_vaddr + bytes, header.p_offset};
}

} // namespace

std::size_t parse_kcore_size(std::span<const std::byte> start_of_file) {
    const auto header = structure_at<Elf64_Ehdr>(start_of_file, 0);
    const auto order = std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) throw damaged("it is no ELF file");
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != order ||
        header.e_type != ET_CORE || header.e_phentsize != sizeof(Elf64_Phdr))
        throw damaged("it is no core file of this machine");
    const std::size_t segments = std::size_t{header.e_phnum} * sizeof(Elf64_Phdr);
    if (header.e_phoff > most_note_bytes) throw damaged("its headers lie elsewhere");
    return header.e_phoff + segments;
}

KcoreHeaders parse_kcore(std::span<const std::byte> headers) {
    const auto header = structure_at<Elf64_Ehdr>(headers, 0);
    if (headers.size() < parse_kcore_size(headers)) throw damaged("it ends within its headers");
    KcoreHeaders found;
    for (std::size_t i = 0; i < header.e_phnum; ++i) {
        const auto segment =
            structure_at<Elf64_Phdr>(headers, header.e_phoff + i * sizeof(Elf64_Phdr));
        if (segment.p_type == PT_NOTE && segment.p_offset <= last_offset) {
            found.notes_offset = segment.p_offset;
            found.notes_bytes = std::min<std::uint64_t>(segment.p_filesz, most_note_bytes);
        }
        if (segment.p_type != PT_LOAD) continue;
        const auto loaded = parse_segment(segment);
        if (loaded.start < loaded.end) found.segments.push_back(loaded);
    }
    std::sort(found.segments.begin(), found.segments.end(),
              [](const auto& a, const auto& b) { return a.start < b.start; });
    return found;
}

std::span<const std::byte> find_task_note(std::span<const std::byte> notes) {
    const auto aligned = [](std::size_t bytes) { return (bytes + 3) & ~std::size_t{3}; };
    while (notes.size() >= sizeof(Elf64_Nhdr)) {
        const auto note = structure_at<Elf64_Nhdr>(notes, 0);
        notes = notes.subspan(sizeof note);
        const std::size_t name_bytes = aligned(note.n_namesz);
        if (name_bytes > notes.size() || note.n_descsz > notes.size() - name_bytes) break;
        if (note.n_type == NT_TASKSTRUCT && note.n_namesz == sizeof "CORE" &&
            std::memcmp(notes.data(), "CORE", sizeof "CORE") == 0)
            return notes.subspan(name_bytes, note.n_descsz);
        notes = notes.subspan(std::min(notes.size(), name_bytes + aligned(note.n_descsz)));
    }
    return {};
}

KcoreReader::KcoreReader(const Root& root) {
    auto opened = root.open(subject, O_RDONLY);
    if (!opened.fd) {
        const bool absent = opened.error == ENOENT;
        throw Error{absent ? ErrorKind::unsupported : ErrorKind::denied, subject, opened.error,
                    absent ? "the kernel was built without CONFIG_PROC_KCORE"
                           : "needs CAP_SYS_RAWIO, and no lockdown=confidentiality"};
    }
    file_ = std::move(opened.fd);
    start_ = read_bytes(file_.get(), 0, elf_header_bytes);
    headers_ = parse_kcore(read_bytes(file_.get(), 0, parse_kcore_size(start_)));
}

std::vector<std::byte> KcoreReader::own_task() const {
    const auto notes = read_bytes(file_.get(), headers_.notes_offset, headers_.notes_bytes);
    const auto note = find_task_note(notes);
    return {note.begin(), note.end()};
}

bool KcoreReader::copy(const walk::Piece& piece, std::span<std::byte> to) const {
    // Segments may overlap (the kernel's text lies in the direct map, too), so the nearest start
    // need not be the one that holds the piece.
    for (const KcoreSegment& segment : headers_.segments) {
        if (segment.start > piece.address) return false;
        if (piece.address >= segment.end || segment.end - piece.address < piece.bytes) continue;
        const auto offset = segment.offset + (piece.address - segment.start);
        ssize_t n;
        do {
            n = ::pread(file_.get(), to.data(), to.size(), static_cast<off_t>(offset));
        } while (n < 0 && errno == EINTR);
        return n == static_cast<ssize_t>(to.size());
    }
    return false;
}

walk::Copied KcoreReader::read(std::span<const walk::Piece> pieces) {
    std::size_t bytes = 0;
    for (const auto& piece : pieces) {
        if (piece.bytes > longest_piece) bytes = most_bytes();
        bytes += piece.bytes;
    }
    if (pieces.size() > most_pieces() || bytes > most_bytes())
        throw Error{ErrorKind::failed, subject, 0, "", "more was asked than one call takes"};
    copied_.assign(bytes, std::byte{});
    good_.assign(pieces.size(), 0);
    std::size_t at = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const auto to = std::span{copied_}.subspan(at, pieces[i].bytes);
        good_[i] = copy(pieces[i], to) ? 1 : 0;
        if (good_[i] == 0) std::fill(to.begin(), to.end(), std::byte{});
        at += pieces[i].bytes;
    }
    // The number of segments, which this header holds, decides where in the file they lie.
    if (read_bytes(file_.get(), 0, elf_header_bytes) != start_)
        throw Error{ErrorKind::failed, subject, 0, "",
                    "the machine's memory was changed meanwhile"};
    return {copied_, good_};
}

} // namespace pagesift::os
