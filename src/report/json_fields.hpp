// SPDX-License-Identifier: MIT
// The members that json and ndjson have in common.
#pragma once

#include "pagesift/figures.hpp"
#include "pagesift/report.hpp"
#include "report/json_writer.hpp"

namespace pagesift::report {

inline constexpr std::string_view inspect_schema = "pagesift.inspect/1";
inline constexpr std::string_view doctor_schema = "pagesift.doctor/1";

// Each writes members into the object that is open.
void write_identity(JsonWriter& json, const ProcessText& process);
void write_look(JsonWriter& json, const Census& census);   ///< lens, page size, what was asked
void write_totals(JsonWriter& json, const Census& census); ///< "totals": {…}
void write_ksm(JsonWriter& json, const Census& census);    ///< "ksm": {…}
void write_saving(JsonWriter& json, const Saving& saving);
void write_mapping(JsonWriter& json, const MappingCensus& entry, const KnownKinds& known,
                   std::uint64_t page_size);
void write_run(JsonWriter& json, const Run& run, const Mapping& mapping, std::uint64_t page_size);
void write_page(JsonWriter& json, const Page& page, const Mapping& mapping);
void write_slot(JsonWriter& json, const Slot& slot);
void write_gap(JsonWriter& json, const Gap& gap);

} // namespace pagesift::report
