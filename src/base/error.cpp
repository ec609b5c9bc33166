// SPDX-License-Identifier: MIT
#include "pagesift/base.hpp"

#include <cstring>
#include <fmt/format.h>

namespace pagesift {

std::string errno_name(int errnum) {
    if (const char* name = strerrorname_np(errnum)) return name;
    return fmt::format("errno {}", errnum);
}

namespace {

std::string lower_first(std::string text) {
    if (text.size() > 1 && text[0] >= 'A' && text[0] <= 'Z' && !(text[1] >= 'A' && text[1] <= 'Z'))
        text[0] = static_cast<char>(text[0] - 'A' + 'a');
    return text;
}

std::string compose(const std::string& subject, int errnum, const std::string& detail) {
    if (errnum == 0) return fmt::format("{}: {}", escape_text(subject), detail);
    const char* text = strerrordesc_np(errnum);
    std::string why = detail.empty() ? lower_first(text ? text : "unknown error") : detail;
    return fmt::format("{}: {} ({})", escape_text(subject), why, errno_name(errnum));
}

} // namespace

Error::Error(ErrorKind kind, const std::string& subject, int errnum, std::string hint,
             const std::string& detail)
    : kind_(kind),
      errnum_(errnum),
      message_(compose(subject, errnum, detail)),
      hint_(std::move(hint)) {}

} // namespace pagesift
