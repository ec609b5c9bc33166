// SPDX-License-Identifier: MIT
// The --where language: conditions on the words of the tables, on mapping names and sizes.
#include "pagesift/condition.hpp"

#include <fnmatch.h>

namespace pagesift {

using Rule = Condition<Mapping, PageClass>;

struct Filter::Node : Rule {
    explicit Node(const Rule& rule) : Rule(rule) {}
};

namespace {

using RulePtr = Rule::Ptr;
using Token = ConditionReader::Token;

/// What a test needs: nothing but the entry and its flags, or the contents as well.
constexpr unsigned contents = 1;

RulePtr invert(RulePtr rule) { return Rule::join(Rule::Op::negate, std::move(rule)); }

class Parser {
public:
    explicit Parser(std::string_view text)
        : reader_(text, "words: states, kinds, attributes, markers; name, size, state, kind, "
                        "marker, backing, folio with = != ~ < <= > >=") {}

    RulePtr parse() {
        return read_condition<Rule>(reader_, [&] { return term(); });
    }

private:
    RulePtr term() {
        const Token word = reader_.take();
        if (const auto op = reader_.take_operator(); !op.empty()) return comparison(word, op);
        if (auto rule = bare(word.text)) return rule;
        reader_.fail("not a word that --where knows", word);
    }

    RulePtr comparison(const Token& subject, std::string_view op) {
        const Token value = reader_.take_value();
        if (subject.text == "name") return compare_name(op, value.text);
        if (subject.text == "size") return compare_size(op, value);
        RulePtr rule;
        if (subject.text == "state")
            rule = state_word(value.text);
        else if (subject.text == "kind")
            rule = kind_word(value.text);
        else if (subject.text == "marker")
            rule = marker_word(value.text);
        else if (subject.text == "backing")
            rule = backing_word(value.text);
        else if (subject.text == "folio")
            rule = folio_word(value.text);
        else
            reader_.fail("not something that can be compared", subject);
        if (!rule) reader_.fail("not a " + subject.text, value);
        if (op == "=" || op == "==") return rule;
        if (op == "!=") return invert(rule);
        reader_.fail("only = and != go with " + subject.text);
    }

    RulePtr compare_name(std::string_view op, const std::string& value) {
        const bool pattern = op == "~" || op == "!~";
        if (op.starts_with('<') || op.starts_with('>')) reader_.fail("only = != ~ !~ go with name");
        auto rule = Rule::leaf([pattern, value](const Mapping& mapping, const PageClass&) {
            return tri(pattern ? ::fnmatch(value.c_str(), mapping.name.c_str(), 0) == 0
                               : mapping.name == value);
        });
        return op.starts_with('!') ? invert(rule) : rule;
    }

    RulePtr compare_size(std::string_view op, const Token& value) {
        const std::uint64_t limit = parse_size(value.text, "--where");
        if (op == "~" || op == "!~") reader_.fail("only = != < <= > >= go with size");
        const std::string kept{op};
        return Rule::leaf([limit, kept](const Mapping& mapping, const PageClass&) {
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

    static RulePtr state_word(std::string_view word) {
        const auto index = find(state_table(), word);
        if (!index) return {};
        return Rule::leaf(
            [state = static_cast<State>(*index)](const Mapping&, const PageClass& cls) {
                // What is unknown may well be this state.
                if (cls.state == State::unknown && state != State::unknown) return Tri::unknown;
                return tri(cls.state == state);
            });
    }

    static RulePtr kind_word(std::string_view word) {
        const auto index = find(kind_table(), word);
        if (!index) return {};
        const auto kind = static_cast<Kind>(*index);
        const bool read = kind == Kind::zero_filled || kind == Kind::ksm_zero;
        return Rule::leaf(
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
            read ? contents : 0);
    }

    static RulePtr marker_word(std::string_view word) {
        const auto index = find(marker_table(), word);
        if (!index) return {};
        return Rule::leaf(
            [marker = static_cast<Marker>(*index)](const Mapping&, const PageClass& cls) {
                return tri(cls.marker == marker);
            });
    }

    static RulePtr attribute_word(std::string_view word) {
        const auto index = find(attribute_table(), word);
        if (!index) return {};
        return Rule::leaf([a = static_cast<Attribute>(*index)](
                              const Mapping&, const PageClass& cls) { return cls.attribute(a); });
    }

    static RulePtr backing_word(std::string_view word) {
        static constexpr std::string_view names[] = {"anon",    "file",    "shmem",
                                                     "hugetlb", "special", "device"};
        for (std::size_t i = 0; i < std::size(names); ++i)
            if (names[i] == word)
                return Rule::leaf(
                    [b = static_cast<Backing>(i)](const Mapping& m, const PageClass&) {
                        return tri(m.backing == b);
                    });
        return {};
    }

    static RulePtr folio_word(std::string_view word) {
        static constexpr std::string_view names[] = {"small", "large", "hugetlb"};
        for (std::size_t i = 0; i < std::size(names); ++i)
            if (names[i] == word)
                return Rule::leaf(
                    [f = static_cast<FolioSize>(i)](const Mapping&, const PageClass& cls) {
                        if (cls.state != State::present) return Tri::no;
                        return cls.folio == FolioSize::unknown ? Tri::unknown : tri(cls.folio == f);
                    });
        return {};
    }

    static RulePtr permission_word(std::string_view word) {
        const auto of = [](auto member) {
            return Rule::leaf(
                [member](const Mapping& m, const PageClass&) { return tri(m.*member); });
        };
        if (word == "readable") return of(&Mapping::readable);
        if (word == "writable") return of(&Mapping::writable);
        if (word == "executable") return of(&Mapping::executable);
        if (word == "shared") return of(&Mapping::shared);
        if (word == "private") return invert(of(&Mapping::shared));
        return {};
    }

    static RulePtr bare(std::string_view word) {
        if (word == "unknown")
            return Rule::leaf([](const Mapping&, const PageClass& cls) {
                return tri(cls.state == State::unknown || cls.kind == Kind::unknown);
            });
        for (const auto& find_word :
             {state_word, kind_word, attribute_word, marker_word, permission_word})
            if (auto rule = find_word(word)) return rule;
        return {};
    }

    ConditionReader reader_;
};

} // namespace

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
    filter.root_ = std::make_shared<const Node>(*Parser{expression}.parse());
    return filter;
}

bool Filter::needs_contents() const { return root_ && root_->needs >= contents; }

Tri Filter::matches(const Mapping& mapping, const PageClass& cls) const {
    return root_ ? root_->evaluate(mapping, cls) : Tri::yes;
}

} // namespace pagesift
