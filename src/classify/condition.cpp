// SPDX-License-Identifier: MIT
#include "pagesift/condition.hpp"

#include <fmt/format.h>

namespace pagesift {
namespace {

// A chain of brackets or nots is followed by recursion; no reasonable condition is this deep.
constexpr int deepest = 100;

bool is_word_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

} // namespace

ConditionReader::ConditionReader(std::string_view text, std::string hint)
    : text_(text), hint_(std::move(hint)) {
    advance();
}

void ConditionReader::fail(const std::string& why, const Token& at) const {
    const auto shown = at.type == Token::Type::end ? std::string{"the end"}
                                                   : fmt::format("'{}'", escape_text(at.text));
    throw Error{ErrorKind::usage, "--where", 0, hint_,
                fmt::format("{} at {} (column {})", why, shown, at.at + 1)};
}

void ConditionReader::enter() {
    if (++depth_ > deepest) fail("nested too deeply");
}

void ConditionReader::advance() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\t'))
        ++position_;
    token_ = {Token::Type::end, "", position_};
    if (position_ == text_.size()) return;
    const char c = text_[position_];
    if (c == '"' || c == '\'') {
        const auto close = text_.find(c, position_ + 1);
        token_.type = Token::Type::text;
        token_.text = text_.substr(position_ + 1, close - position_ - 1);
        if (close == text_.npos) fail("a quote is not closed");
        position_ = close + 1;
    } else if (is_word_character(c)) {
        const auto start = position_;
        while (position_ < text_.size() && is_word_character(text_[position_])) ++position_;
        token_.type = Token::Type::word;
        token_.text = text_.substr(start, position_ - start);
    } else {
        static constexpr std::string_view pairs[] = {"!=", "!~", "<=", ">=", "==", "&&", "||"};
        std::size_t length = 1;
        for (const auto pair : pairs)
            if (text_.substr(position_).starts_with(pair)) length = 2;
        token_.type = Token::Type::symbol;
        token_.text = text_.substr(position_, length);
        position_ += length;
    }
}

ConditionReader::Token ConditionReader::take() {
    Token taken = token_;
    advance();
    return taken;
}

bool ConditionReader::take(std::string_view word, std::string_view symbol) {
    const bool is = (token_.type == Token::Type::word && token_.text == word) ||
                    (token_.type == Token::Type::symbol && token_.text == symbol);
    if (is) advance();
    return is;
}

std::string_view ConditionReader::take_operator() {
    static constexpr std::string_view operators[] = {"=", "==", "!=", "~", "!~",
                                                     "<", "<=", ">",  ">="};
    for (const auto op : operators)
        if (take("", op)) return op;
    return {};
}

ConditionReader::Token ConditionReader::take_value() {
    if (token_.type != Token::Type::word && token_.type != Token::Type::text)
        fail("expected a value");
    return take();
}

} // namespace pagesift
