// SPDX-License-Identifier: MIT
// --where on records: every field of the table is a word.
#include "pagesift/condition.hpp"
#include "pagesift/scan.hpp"

#include <charconv>
#include <cmath>
#include <fnmatch.h>

namespace pagesift::scan {

using Rule = Condition<Record>;

struct Where::Node : Rule {
    explicit Node(const Rule& rule) : Rule(rule) {}
};

namespace {

using RulePtr = Rule::Ptr;
using Token = ConditionReader::Token;

template <class Number> bool compare(Number a, std::string_view op, Number b) {
    if (op == "<") return a < b;
    if (op == "<=") return a <= b;
    if (op == ">") return a > b;
    if (op == ">=") return a >= b;
    return op == "!=" ? a != b : a == b;
}

/// A record's value as a number; a test on another type would be a fault of the table.
template <class Number>
RulePtr number_rule(std::size_t field, std::string_view op, Number limit, unsigned needs) {
    return Rule::leaf(
        [field, op, limit](const Record& record) {
            const auto* const value = std::get_if<Number>(&record.values[field]);
            return value ? tri(compare(*value, op, limit)) : Tri::unknown;
        },
        needs);
}

class Parser {
public:
    explicit Parser(std::string_view text)
        : reader_(text, "fields, as pagesift-scan(1) lists them, with = != < <= > >=, texts also "
                        "with ~ !~ and a glob; and, or, not, brackets") {}

    RulePtr parse() {
        return read_condition<Rule>(reader_, [&] { return term(); });
    }

private:
    RulePtr term() {
        const Token word = reader_.take();
        const auto field = find_field(word.text);
        if (!field) reader_.fail("there is no such field", word);
        const Unit unit = fields()[*field].unit;
        const Token before_operator = reader_.token();
        const auto op = reader_.take_operator();
        if (op.empty()) {
            if (unit != Unit::flag) reader_.fail("expected an operator and a value");
            return flag(*field, "=", true);
        }
        const bool pattern = op.find('~') != op.npos;
        const bool order = op.find_first_of("<>") != op.npos;
        if (pattern && unit != Unit::text)
            reader_.fail("only = != < <= > >= go with numbers", before_operator);
        if (order && (unit == Unit::text || unit == Unit::flag))
            reader_.fail("this does not go with " + std::string{unit_word(unit)}, before_operator);
        const Token value = reader_.take_value();
        switch (unit) {
        case Unit::text: return text(*field, op, value.text);
        case Unit::flag: return flag(*field, op, read_flag(value));
        case Unit::share:
        case Unit::seconds: return number_rule(*field, op, read_real(value, unit), needs(*field));
        default: return number_rule(*field, op, read_whole(value), needs(*field));
        }
    }

    static unsigned needs(std::size_t field) { return static_cast<unsigned>(fields()[field].from); }

    static RulePtr text(std::size_t field, std::string_view op, const std::string& wanted) {
        return Rule::leaf(
            [field, wanted, pattern = op.ends_with('~'),
             inverted = op.starts_with('!')](const Record& record) {
                const auto* const value = std::get_if<std::string>(&record.values[field]);
                if (!value) return Tri::unknown;
                const bool is =
                    pattern ? ::fnmatch(wanted.c_str(), value->c_str(), 0) == 0 : *value == wanted;
                return tri(is != inverted);
            },
            needs(field));
    }

    static RulePtr flag(std::size_t field, std::string_view op, bool wanted) {
        return Rule::leaf(
            [field, wanted = wanted != op.starts_with('!')](const Record& record) {
                const auto* const value = std::get_if<bool>(&record.values[field]);
                return value ? tri(*value == wanted) : Tri::unknown;
            },
            needs(field));
    }

    bool read_flag(const Token& value) const {
        if (value.text == "true" || value.text == "yes") return true;
        if (value.text == "false" || value.text == "no") return false;
        reader_.fail("expected true or false", value);
    }

    double read_real(const Token& value, Unit unit) const {
        std::string_view digits = value.text;
        const bool percent = unit == Unit::share && digits.ends_with('%');
        if (percent) digits.remove_suffix(1);
        double number = 0;
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), number);
        if (error != std::errc{} || end != digits.data() + digits.size() || !std::isfinite(number))
            reader_.fail(unit == Unit::share ? "expected a share, as 0.5 or '50%'"
                                             : "expected a number of seconds",
                         value);
        return percent ? number / 100 : number;
    }

    std::uint64_t read_whole(const Token& value) const {
        try {
            return parse_size(value.text, "--where");
        } catch (const Error&) {
            reader_.fail("expected a number, as 123, 64K or 1.5G", value);
        }
    }

    ConditionReader reader_;
};

} // namespace

Where::Where() = default;
Where::~Where() = default;
Where::Where(const Where&) = default;
Where::Where(Where&&) noexcept = default;
Where& Where::operator=(Where other) noexcept {
    root_ = std::move(other.root_);
    return *this;
}

Where Where::parse(std::string_view expression) {
    Where where;
    where.root_ = std::make_shared<const Node>(*Parser{expression}.parse());
    return where;
}

Tri Where::matches(const Record& record) const {
    return root_ ? root_->evaluate(record) : Tri::yes;
}

Depth Where::needs() const { return root_ ? static_cast<Depth>(root_->needs) : Depth::totals; }

} // namespace pagesift::scan
