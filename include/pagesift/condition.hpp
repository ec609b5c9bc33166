// SPDX-License-Identifier: MIT
// A third door of the classify room: what the languages of --where have in common. Words, texts in
// quotes and operators; and, or, not, brackets; answers with three values. A language adds its
// terms.
//
//     using Rule = Condition<Record>;
//     ConditionReader reader{"a > 1 and not b", "what may stand here"};
//     const Rule::Ptr rule = read_condition<Rule>(reader, [&] { return Rule::leaf(…); });
#pragma once

#include "pagesift/classify.hpp"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace pagesift {

inline Tri tri(bool yes) { return yes ? Tri::yes : Tri::no; }
inline Tri negate(Tri value) { return value == Tri::unknown ? value : tri(value == Tri::no); }
inline Tri both(Tri a, Tri b) {
    if (a == Tri::no || b == Tri::no) return Tri::no;
    return a == Tri::yes && b == Tri::yes ? Tri::yes : Tri::unknown;
}

/// A condition on values of some types: a tree of tests.
template <class... Subject> struct Condition {
    using Ptr = std::shared_ptr<const Condition>;
    using Test = std::function<Tri(const Subject&...)>;
    enum class Op : std::uint8_t { test, both, either, negate };

    Op op = Op::test;
    Test test;
    Ptr left, right;
    unsigned needs = 0; ///< the most that any test asks for; what that means is the language's own

    static Ptr leaf(Test test, unsigned needs = 0) {
        Condition made;
        made.test = std::move(test);
        made.needs = needs;
        return std::make_shared<const Condition>(std::move(made));
    }
    static Ptr join(Op op, Ptr left, Ptr right = {}) {
        Condition made;
        made.op = op;
        made.needs = std::max(left->needs, right ? right->needs : 0);
        made.left = std::move(left);
        made.right = std::move(right);
        return std::make_shared<const Condition>(std::move(made));
    }

    Tri evaluate(const Subject&... subject) const {
        if (op == Op::test) return test(subject...);
        const Tri a = left->evaluate(subject...);
        if (op == Op::negate) return pagesift::negate(a);
        // "a or b" is "not (not a and not b)", with unknown as well.
        const bool either = op == Op::either;
        if (a == (either ? Tri::yes : Tri::no)) return a;
        const Tri b = right->evaluate(subject...);
        return either ? pagesift::negate(pagesift::both(pagesift::negate(a), pagesift::negate(b)))
                      : pagesift::both(a, b);
    }
};

/// The text of a condition, token by token.
class ConditionReader {
public:
    struct Token {
        enum class Type { word, text, symbol, end } type = Type::end;
        std::string text;
        std::size_t at = 0; ///< where it begins, from 0
    };

    /// @param hint what all messages end with: the words of the language
    ConditionReader(std::string_view text, std::string hint);

    const Token& token() const { return token_; }
    /// The token, and goes on to the next.
    Token take();
    /// Takes a word or a symbol if it stands here; an empty one never does.
    bool take(std::string_view word, std::string_view symbol);
    /// Takes one of = == != ~ !~ < <= > >=; empty: another token stands here.
    std::string_view take_operator();
    /// Takes a word or a text.
    Token take_value();

    /// Throws Error(usage) that shows the token and its column.
    [[noreturn]] void fail(const std::string& why) const { fail(why, token_); }
    [[noreturn]] void fail(const std::string& why, const Token& at) const;

    /// Counts how deeply the reader is nested; every level is a call.
    void enter();
    void leave() { --depth_; }

private:
    void advance();

    std::string_view text_;
    std::string hint_;
    std::size_t position_ = 0;
    int depth_ = 0;
    Token token_;
};

namespace detail {

template <class Rule, class Term>
typename Rule::Ptr read_either(ConditionReader& reader, const Term& term);

template <class Rule, class Term>
typename Rule::Ptr read_single(ConditionReader& reader, const Term& term) {
    reader.enter();
    typename Rule::Ptr rule;
    if (reader.take("not", "!")) {
        rule = Rule::join(Rule::Op::negate, read_single<Rule>(reader, term));
    } else if (reader.take("", "(")) {
        rule = read_either<Rule>(reader, term);
        if (!reader.take("", ")")) reader.fail("expected ')'");
    } else {
        if (reader.token().type != ConditionReader::Token::Type::word)
            reader.fail("expected a word");
        rule = term();
    }
    reader.leave();
    return rule;
}

template <class Rule, class Term>
typename Rule::Ptr read_both(ConditionReader& reader, const Term& term) {
    auto rule = read_single<Rule>(reader, term);
    while (reader.take("and", "&&"))
        rule = Rule::join(Rule::Op::both, rule, read_single<Rule>(reader, term));
    return rule;
}

template <class Rule, class Term>
typename Rule::Ptr read_either(ConditionReader& reader, const Term& term) {
    auto rule = read_both<Rule>(reader, term);
    while (reader.take("or", "||"))
        rule = Rule::join(Rule::Op::either, rule, read_both<Rule>(reader, term));
    return rule;
}

} // namespace detail

/// Reads all of it. @p term is called where a word stands, takes the words of one term and gives
/// its rule.
template <class Rule, class Term>
typename Rule::Ptr read_condition(ConditionReader& reader, const Term& term) {
    auto rule = detail::read_either<Rule>(reader, term);
    if (reader.token().type != ConditionReader::Token::Type::end)
        reader.fail("expected 'and', 'or' or the end");
    return rule;
}

} // namespace pagesift
