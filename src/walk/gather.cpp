// SPDX-License-Identifier: MIT
#include "walk/gather.hpp"

namespace pagesift::walk {

Copied read_checked(KernelMemory& memory, std::span<const Piece> pieces) {
    const Copied copied = memory.read(pieces);
    std::size_t bytes = 0;
    for (const Piece& piece : pieces) bytes += piece.bytes;
    if (copied.good.size() != pieces.size() || copied.bytes.size() != bytes)
        throw Error{ErrorKind::failed, "kernel memory", 0, {}, "the reader answered short"};
    return copied;
}

} // namespace pagesift::walk
