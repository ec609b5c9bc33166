// SPDX-License-Identifier: MIT
// The --where language: conditions on the words of the tables, on mapping names and sizes.
#include "pagesift/classify.hpp"

#include <fmt/format.h>
#include <fnmatch.h>

namespace pagesift {

struct Filter::Node {
    using Test = std::function<Tri(const Mapping&, const PageClass&)>;
    enum class Op { test, both, either, negate } op = Op::test;
    Test test;
    std::shared_ptr<const Node> left, right;
    bool contents = false;

    Tri evaluate(const Mapping& mapping, const PageClass& cls) const;
};

namespace {

using Node = Filter::Node;
using NodePtr = std::shared_ptr<const Node>;

Tri tri(bool yes) { return yes ? Tri::yes : Tri::no; }

Tri negate(Tri value) { return value == Tri::unknown ? Tri::unknown : tri(value == Tri::no); }

struct Token {
    enum class Type { word, text, symbol, end } type = Type::end;
    std::string text;
    std::size_t at = 0;
};

bool is_word_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) { advance(); }

    NodePtr parse() {
        auto node = either();
        if (token_.type != Token::Type::end) fail("expected 'and', 'or' or the end");
        return node;
    }

private:
    // A chain of brackets or nots is followed by recursion; no reasonable condition is this deep.
    static constexpr int deepest = 100;

    [[noreturn]] void fail(const std::string& why) const {
        const auto shown = token_.type == Token::Type::end
                               ? std::string{"the end"}
                               : fmt::format("'{}'", escape_text(token_.text));
        throw Error{ErrorKind::usage, "--where", 0,
                    "words: states, kinds, attributes, markers; name, size, state, kind, marker, "
                    "backing, folio with = != ~ < <= > >=",
                    fmt::format("{} at {} (column {})", why, shown, token_.at + 1)};
    }

    void advance() {
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

    bool take(std::string_view word, std::string_view symbol) {
        const bool is = (token_.type == Token::Type::word && token_.text == word) ||
                        (token_.type == Token::Type::symbol && token_.text == symbol);
        if (is) advance();
        return is;
    }

    static NodePtr join(Node::Op op, NodePtr left, NodePtr right) {
        auto node = std::make_shared<Node>();
        node->op = op;
        node->contents = left->contents || (right && right->contents);
        node->left = std::move(left);
        node->right = std::move(right);
        return node;
    }

    NodePtr either() {
        auto node = both();
        while (take("or", "||")) node = join(Node::Op::either, node, both());
        return node;
    }

    NodePtr both() {
        auto node = single();
        while (take("and", "&&")) node = join(Node::Op::both, node, single());
        return node;
    }

    NodePtr single() {
        if (++depth_ > deepest) fail("nested too deeply");
        NodePtr node;
        if (take("not", "!")) {
            node = join(Node::Op::negate, single(), nullptr);
        } else if (take("", "(")) {
            node = either();
            if (!take("", ")")) fail("expected ')'");
        } else {
            node = term();
        }
        --depth_;
        return node;
    }

    static NodePtr leaf(Node::Test test, bool contents = false) {
        auto node = std::make_shared<Node>();
        node->test = std::move(test);
        node->contents = contents;
        return node;
    }

    NodePtr term() {
        if (token_.type != Token::Type::word) fail("expected a word");
        const Token word = token_;
        advance();
        static constexpr std::string_view operators[] = {"=", "==", "!=", "~", "!~",
                                                         "<", "<=", ">",  ">="};
        for (const auto op : operators)
            if (token_.type == Token::Type::symbol && token_.text == op) {
                advance();
                return comparison(word, op);
            }
        if (auto node = bare(word.text)) return node;
        token_ = word;
        fail("not a word that --where knows");
    }

    NodePtr comparison(const Token& subject, std::string_view op) {
        if (token_.type != Token::Type::word && token_.type != Token::Type::text)
            fail("expected a value");
        const Token value = token_;
        advance();
        if (subject.text == "name") return compare_name(op, value.text);
        if (subject.text == "size") return compare_size(op, value);
        NodePtr node;
        if (subject.text == "state")
            node = state_word(value.text);
        else if (subject.text == "kind")
            node = kind_word(value.text);
        else if (subject.text == "marker")
            node = marker_word(value.text);
        else if (subject.text == "backing")
            node = backing_word(value.text);
        else if (subject.text == "folio")
            node = folio_word(value.text);
        else {
            token_ = subject;
            fail("not something that can be compared");
        }
        if (!node) {
            token_ = value;
            fail("not a " + subject.text);
        }
        if (op == "=" || op == "==") return node;
        if (op == "!=") return join(Node::Op::negate, node, nullptr);
        fail("only = and != go with " + subject.text);
    }

    NodePtr compare_name(std::string_view op, const std::string& value) {
        const bool pattern = op == "~" || op == "!~";
        if (op.starts_with('<') || op.starts_with('>')) fail("only = != ~ !~ go with name");
        auto node = leaf([pattern, value](const Mapping& mapping, const PageClass&) {
            return tri(pattern ? ::fnmatch(value.c_str(), mapping.name.c_str(), 0) == 0
                               : mapping.name == value);
        });
        return op.starts_with('!') ? join(Node::Op::negate, node, nullptr) : node;
    }

    NodePtr compare_size(std::string_view op, const Token& value) {
        const std::uint64_t limit = parse_size(value.text, "--where");
        if (op == "~" || op == "!~") fail("only = != < <= > >= go with size");
        const std::string kept{op};
        return leaf([limit, kept](const Mapping& mapping, const PageClass&) {
            const std::uint64_t size = mapping.range.size().value;
            if (kept == "<") return tri(size < limit);
            if (kept == "<=") return tri(size <= limit);
            if (kept == ">") return tri(size > limit);
            if (kept == ">=") return tri(size >= limit);
            return tri((size == limit) == (kept != "!="));
        });
    }

    /// The index of @p word in a table; kebab-case and snake_case are both understood.
    template <std::size_t N>
    static std::optional<std::size_t> find(std::span<const Word, N> table, std::string_view word) {
        for (std::size_t i = 0; i < N; ++i)
            if (!word.empty() && (table[i].name == word || table[i].field == word)) return i;
        return {};
    }

    static NodePtr state_word(std::string_view word) {
        const auto index = find(state_table(), word);
        if (!index) return {};
        return leaf([state = static_cast<State>(*index)](const Mapping&, const PageClass& cls) {
            // What is unknown may well be this state.
            if (cls.state == State::unknown && state != State::unknown) return Tri::unknown;
            return tri(cls.state == state);
        });
    }

    static NodePtr kind_word(std::string_view word) {
        const auto index = find(kind_table(), word);
        if (!index) return {};
        const auto kind = static_cast<Kind>(*index);
        const bool contents = kind == Kind::zero_filled || kind == Kind::ksm_zero;
        return leaf(
            [kind](const Mapping&, const PageClass& cls) {
                if (cls.kind == kind && cls.folio != FolioSize::unknown) return Tri::yes;
                // Without page flags, anon may be KSM or part of a large folio.
                const bool by_flags = kind == Kind::ksm || kind == Kind::ksm_sole ||
                                      kind == Kind::thp || kind == Kind::anon;
                if (cls.folio == FolioSize::unknown && cls.state == State::present && by_flags &&
                    cls.kind == Kind::anon)
                    return Tri::unknown;
                if (cls.kind == Kind::unknown && kind != Kind::unknown) return Tri::unknown;
                return tri(cls.kind == kind);
            },
            contents);
    }

    static NodePtr marker_word(std::string_view word) {
        const auto index = find(marker_table(), word);
        if (!index) return {};
        return leaf([marker = static_cast<Marker>(*index)](const Mapping&, const PageClass& cls) {
            return tri(cls.marker == marker);
        });
    }

    static NodePtr attribute_word(std::string_view word) {
        const auto index = find(attribute_table(), word);
        if (!index) return {};
        return leaf([a = static_cast<Attribute>(*index)](const Mapping&, const PageClass& cls) {
            return cls.attribute(a);
        });
    }

    static NodePtr backing_word(std::string_view word) {
        static constexpr std::string_view names[] = {"anon",    "file",    "shmem",
                                                     "hugetlb", "special", "device"};
        for (std::size_t i = 0; i < std::size(names); ++i)
            if (names[i] == word)
                return leaf([b = static_cast<Backing>(i)](const Mapping& m, const PageClass&) {
                    return tri(m.backing == b);
                });
        return {};
    }

    static NodePtr folio_word(std::string_view word) {
        static constexpr std::string_view names[] = {"small", "large", "hugetlb"};
        for (std::size_t i = 0; i < std::size(names); ++i)
            if (names[i] == word)
                return leaf([f = static_cast<FolioSize>(i)](const Mapping&, const PageClass& cls) {
                    if (cls.state != State::present) return Tri::no;
                    return cls.folio == FolioSize::unknown ? Tri::unknown : tri(cls.folio == f);
                });
        return {};
    }

    static NodePtr permission_word(std::string_view word) {
        const auto of = [](auto member) {
            return leaf([member](const Mapping& m, const PageClass&) { return tri(m.*member); });
        };
        if (word == "readable") return of(&Mapping::readable);
        if (word == "writable") return of(&Mapping::writable);
        if (word == "executable") return of(&Mapping::executable);
        if (word == "shared") return of(&Mapping::shared);
        if (word == "private") return join(Node::Op::negate, of(&Mapping::shared), nullptr);
        return {};
    }

    static NodePtr bare(std::string_view word) {
        if (word == "unknown")
            return leaf([](const Mapping&, const PageClass& cls) {
                return tri(cls.state == State::unknown || cls.kind == Kind::unknown);
            });
        for (const auto& find_word :
             {state_word, kind_word, attribute_word, marker_word, permission_word})
            if (auto node = find_word(word)) return node;
        return {};
    }

    std::string_view text_;
    std::size_t position_ = 0;
    int depth_ = 0;
    Token token_;
};

} // namespace

Tri Filter::Node::evaluate(const Mapping& mapping, const PageClass& cls) const {
    switch (op) {
    case Op::test: return test(mapping, cls);
    case Op::negate: return negate(left->evaluate(mapping, cls));
    case Op::both: {
        const Tri a = left->evaluate(mapping, cls);
        if (a == Tri::no) return Tri::no;
        const Tri b = right->evaluate(mapping, cls);
        if (b == Tri::no) return Tri::no;
        return a == Tri::yes && b == Tri::yes ? Tri::yes : Tri::unknown;
    }
    case Op::either: {
        const Tri a = left->evaluate(mapping, cls);
        if (a == Tri::yes) return Tri::yes;
        const Tri b = right->evaluate(mapping, cls);
        if (b == Tri::yes) return Tri::yes;
        return a == Tri::no && b == Tri::no ? Tri::no : Tri::unknown;
    }
    }
    return Tri::unknown;
}

Filter::Filter() = default;
Filter::~Filter() = default;
Filter::Filter(const Filter&) = default;
Filter::Filter(Filter&&) noexcept = default;
Filter& Filter::operator=(Filter other) noexcept {
    root_ = std::move(other.root_);
    return *this;
}

Filter Filter::parse(std::string_view expression) {
    Filter filter;
    filter.root_ = Parser{expression}.parse();
    return filter;
}

bool Filter::needs_contents() const { return root_ && root_->contents; }

Tri Filter::matches(const Mapping& mapping, const PageClass& cls) const {
    return root_ ? root_->evaluate(mapping, cls) : Tri::yes;
}

} // namespace pagesift
