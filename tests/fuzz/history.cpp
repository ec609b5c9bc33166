// SPDX-License-Identifier: MIT
// Histories: whatever a file holds, it is read as a history or refused, and neither run nor
// changed.
#include "fuzz.hpp"

#include "pagesift/report.hpp"

#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace {

using namespace pagesift;
using namespace pagesift::fuzz;

/// SQLite wants a name.
class File {
public:
    File() {
        fd_ = ::mkstemp(name_.data());
        require(fd_ >= 0, "there is a folder for temporary files");
    }
    ~File() {
        ::close(fd_);
        ::unlink(name_.c_str());
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    const std::string& name() const { return name_; }
    void put(const std::uint8_t* data, std::size_t size) const {
        require(::ftruncate(fd_, 0) == 0 &&
                    ::pwrite(fd_, data, size, 0) == static_cast<ssize_t>(size),
                "the file can be written");
    }
    bool holds(const std::uint8_t* data, std::size_t size) const {
        std::vector<std::uint8_t> bytes(size + 1);
        return ::pread(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(size) &&
               std::memcmp(bytes.data(), data, size) == 0;
    }

private:
    std::string name_ = "/tmp/pagesift-fuzz-history-XXXXXX";
    int fd_ = -1;
};

void read_all(const std::string& name) {
    constexpr std::size_t most = 1000;
    report::History history{name, report::History::Use::read, {"", std::chrono::milliseconds{0}}};
    std::size_t scans = 0, records = 0;
    for (const auto& entry : history.scans()) {
        if (++scans > most) return;
        history.records(entry.id, [&](const scan::Record& record) {
            require(record.values.size() == scan::fields().size(), "a record has all fields");
            if (++records > most) throw Error{ErrorKind::bad_input, "the file", 0, "", "is long"};
        });
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const File file;
    // It makes a file beside that of the history where that says so; none of it is left.
    if (size == 0) return 0;
    file.put(data, size);
    try {
        read_all(file.name());
    } catch (const Error& error) {
        require(error.kind() != ErrorKind::usage, "the file is to blame");
        require(is_printable(error.what()), "the message can be printed");
    }
    require(file.holds(data, size), "what is read is not written to");
    return 0;
}
