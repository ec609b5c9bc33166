// SPDX-License-Identifier: MIT
// Conditions of --where: of inspect, and what they say of a few mappings and classes; and of scan,
// and what they say of a few records.
#include "fuzz.hpp"

#include "pagesift/classify.hpp"
#include "pagesift/scan.hpp"

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

std::vector<Mapping> made_up_mappings() {
    std::vector<Mapping> mappings(3);
    mappings[0].range = {Address{0x1000}, Address{0x3000}};
    mappings[1].range = {Address{0x7f0000000000}, Address{0x7f0040000000}};
    mappings[1].name = "/usr/lib/x86_64-linux-gnu/lib c.so.6";
    mappings[1].backing = Backing::file;
    mappings[1].readable = mappings[1].executable = true;
    mappings[2].range = {Address{0xffffffffff600000}, Address{0xffffffffff601000}};
    mappings[2].name = "\x1b[31m\n\xff*[";
    mappings[2].backing = Backing::shmem;
    mappings[2].shared = true;
    return mappings;
}

std::vector<PageClass> made_up_classes() {
    std::vector<PageClass> classes;
    for (unsigned i = 0; i < state_count; ++i) {
        PageClass cls;
        cls.state = static_cast<State>(i);
        if (cls.state == State::present) cls.kind = Kind::anon;
        if (cls.state == State::marker) cls.marker = Marker::guard;
        classes.push_back(cls);
    }
    for (unsigned i = 0; i < kind_count; ++i) {
        PageClass cls;
        cls.state = State::present;
        cls.kind = static_cast<Kind>(i);
        cls.folio = static_cast<FolioSize>(i % 4);
        for (unsigned a = 0; a < attribute_count; ++a)
            cls.set(static_cast<Attribute>(a), static_cast<Tri>((i + a) % 3));
        classes.push_back(cls);
    }
    return classes;
}

/// Records in which everything is unknown, everything is as small as can be, and as large.
std::vector<scan::Record> made_up_records() {
    std::vector<scan::Record> records(3);
    for (std::size_t i = 0; i < scan::fields().size(); ++i) {
        switch (scan::fields()[i].unit) {
        case scan::Unit::text:
            records[1].values[i] = std::string{};
            records[2].values[i] = std::string{"\x1b[31m\n\xff*["};
            break;
        case scan::Unit::flag:
            records[1].values[i] = false;
            records[2].values[i] = true;
            break;
        case scan::Unit::share:
        case scan::Unit::seconds:
            records[1].values[i] = 0.0;
            records[2].values[i] = 1.0;
            break;
        default: records[1].values[i] = std::uint64_t{0}; records[2].values[i] = ~std::uint64_t{0};
        }
    }
    return records;
}

Tri opposite(Tri value) {
    return value == Tri::unknown ? value : value == Tri::yes ? Tri::no : Tri::yes;
}

/// @p text and its negation as conditions of one language, and what they say of each of @p ask.
template <class Language, class Ask> void try_language(std::string_view text, const Ask& ask) {
    Language condition, negated;
    bool has_negated = false;
    try {
        condition = Language::parse(text);
        // One level deeper, it may be refused.
        negated = Language::parse("not (" + std::string{text} + ")");
        has_negated = true;
    } catch (const Error& error) {
        require(error.kind() == ErrorKind::usage, "the command line is to blame");
        require(is_printable(error.what()), "the message can be printed");
    }
    ask(condition, [&](Tri answer, const auto&... subject) {
        require(answer <= Tri::unknown, "there are three answers");
        if (has_negated)
            require(negated.matches(subject...) == opposite(answer), "not turns yes and no");
    });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto mappings = made_up_mappings();
    static const auto classes = made_up_classes();
    static const auto records = made_up_records();
    const auto text = as_text(data, size);
    try_language<Filter>(text, [&](const Filter& filter, const auto& check) {
        for (const Mapping& mapping : mappings)
            for (const PageClass& cls : classes) check(filter.matches(mapping, cls), mapping, cls);
    });
    try_language<scan::Where>(text, [&](const scan::Where& where, const auto& check) {
        for (const scan::Record& record : records) check(where.matches(record), record);
        require(where.needs() <= scan::Depth::content, "there are three depths");
    });
    return 0;
}
