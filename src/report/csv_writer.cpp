// SPDX-License-Identifier: MIT
#include "report/csv_writer.hpp"

#include "pagesift/base.hpp"

namespace pagesift::report {

void CsvWriter::text(std::string_view foreign) {
    separate();
    out_.put('"');
    for (const char c : escape_text(foreign)) {
        if (c == '"') out_.put('"');
        out_.put(c);
    }
    out_.put('"');
}

} // namespace pagesift::report
