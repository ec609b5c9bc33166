// SPDX-License-Identifier: MIT
// Real programs that are paged out and brought back while they work: whatever pagesift does to
// their memory, what they keep is what was written.
#include "advise_torment.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pagesift::live {

namespace {

// Redis ------------------------------------------------------------------------------------------

/// A client that speaks Redis' protocol, several commands at a time.
class RedisClient {
public:
    explicit RedisClient(const std::string& socket_path) {
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        std::strncpy(name.sun_path, socket_path.c_str(), sizeof name.sun_path - 1);
        for (int tries = 0; tries < 1000 && fd_ < 0; ++tries, usleep(20'000)) {
            const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0)
                fd_ = fd;
            else
                close(fd);
        }
    }
    ~RedisClient() { close(fd_); }
    RedisClient(const RedisClient&) = delete;
    RedisClient& operator=(const RedisClient&) = delete;
    bool connected() const { return fd_ >= 0; }

    /// The answers, one for each command: of a bulk string its contents, else the line.
    std::vector<std::string> ask(const std::vector<std::vector<std::string>>& commands) {
        std::string text;
        for (const auto& command : commands) {
            text += "*" + std::to_string(command.size()) + "\r\n";
            for (const auto& word : command)
                text += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
        }
        for (std::size_t sent = 0; sent < text.size();) {
            const ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
            if (n <= 0) return {};
            sent += static_cast<std::size_t>(n);
        }
        std::vector<std::string> answers;
        while (answers.size() < commands.size()) answers.push_back(read_answer());
        return answers;
    }

private:
    std::string read_answer() {
        const std::string line = take_line();
        if (line.rfind('$', 0) != 0 || line == "$-1") return line;
        const std::size_t length = std::strtoull(line.c_str() + 1, nullptr, 10);
        while (buffer_.size() < length + 2 && read_more()) {
        }
        const std::string value = buffer_.substr(0, length);
        buffer_.erase(0, length + 2);
        return value;
    }
    std::string take_line() {
        for (;;) {
            if (const auto end = buffer_.find("\r\n"); end != std::string::npos) {
                std::string line = buffer_.substr(0, end);
                buffer_.erase(0, end + 2);
                return line;
            }
            if (!read_more()) return {};
        }
    }
    bool read_more() {
        char bytes[1 << 16];
        const ssize_t n = read(fd_, bytes, sizeof bytes);
        if (n > 0) buffer_.append(bytes, static_cast<std::size_t>(n));
        return n > 0;
    }

    int fd_ = -1;
    std::string buffer_;
};

/// Keys whose values change all the time, and what each of them must be.
class Keys {
public:
    static constexpr std::size_t count = 40000, batch = 200;

    /// Sets a batch of keys anew; the first ones first. False: an answer was wrong.
    bool write(RedisClient& client, std::size_t first) {
        std::vector<std::vector<std::string>> commands;
        for (std::size_t key = first; key < first + batch; ++key) {
            ++versions_[key];
            commands.push_back({"SET", name(key), value(key)});
        }
        const auto answers = client.ask(commands);
        return answers == std::vector<std::string>(batch, "+OK");
    }
    std::size_t wrong(RedisClient& client) const {
        std::size_t wrong = 0;
        for (std::size_t first = 0; first < count; first += batch) {
            std::vector<std::vector<std::string>> commands;
            for (std::size_t key = first; key < first + batch; ++key)
                commands.push_back({"GET", name(key)});
            const auto answers = client.ask(commands);
            for (std::size_t i = 0; i < batch; ++i)
                wrong += i >= answers.size() || answers[i] != value(first + i);
        }
        return wrong;
    }

private:
    static std::string name(std::size_t key) { return "key:" + std::to_string(key); }
    std::string value(std::size_t key) const {
        std::mt19937_64 random{key << 32 | versions_[key]};
        std::string text(200 + random() % 800, ' ');
        for (char& c : text) c = static_cast<char>('!' + random() % 90);
        return text;
    }
    std::vector<std::uint64_t> versions_ = std::vector<std::uint64_t>(count);
};

/// Values of many pages: a third of them zeros, and each of the others there more than once.
class Large {
public:
    static constexpr std::size_t count = 48, bytes = 256 << 10;

    bool write(RedisClient& client, std::size_t number) {
        kinds_[number] = (kinds_[number] * 5 + number + 1) % 12;
        return client.ask({{"SET", name(number), value(number)}}) ==
               std::vector<std::string>{"+OK"};
    }
    bool write_all(RedisClient& client) {
        bool all = true;
        for (std::size_t number = 0; number < count; ++number) all = write(client, number) && all;
        return all;
    }
    std::size_t wrong(RedisClient& client) const {
        std::size_t wrong = 0;
        for (std::size_t number = 0; number < count; ++number)
            wrong += client.ask({{"GET", name(number)}}) != std::vector{value(number)};
        return wrong;
    }

private:
    static std::string name(std::size_t number) { return "large:" + std::to_string(number); }
    std::string value(std::size_t number) const {
        std::string text(bytes, '\0');
        if (kinds_[number] % 3 == 0) return text;
        std::mt19937_64 random{kinds_[number]};
        for (char& c : text) c = static_cast<char>('!' + random() % 90);
        return text;
    }
    std::vector<std::size_t> kinds_ = std::vector<std::size_t>(count);
};

// PostgreSQL -------------------------------------------------------------------------------------

/// A database of its own in a temporary directory, run by the package's user. Nothing of the
/// machine's own databases is touched.
class Database {
public:
    explicit Database(std::string programs)
        : programs_(std::move(programs)), data_(directory_.path() + "/data") {}

    bool create() {
        return succeeds(
                   {"/usr/bin/install", "-d", "-o", "postgres", "-m", "700", data_, sockets()}) &&
               succeeds(as_user({program("initdb"), "-k", "-A", "trust", "-U", "postgres",
                                 "--no-sync", "--locale=C", "-D", data_}));
    }
    /// Its messages go into a file beside the data.
    std::vector<std::string> server() const {
        auto command = as_user({program("postgres"), "-D", data_, "-c", "listen_addresses=", "-c",
                                "unix_socket_directories=" + sockets(), "-c", "shared_buffers=64MB",
                                "-c", "fsync=off"});
        command.insert(command.begin(),
                       {"/bin/sh", "-c", "exec \"$@\" 2> \"$0\"", directory_.path() + "/messages"});
        return command;
    }
    bool wait_until_ready() {
        for (int tries = 0; tries < 600; ++tries, usleep(50'000))
            if (run(as_user({program("pg_isready"), "-q", "-h", sockets()})).exit_code == 0)
                return true;
        return false;
    }
    std::vector<std::string> pgbench(std::vector<std::string> arguments) const {
        std::vector<std::string> all = {program("pgbench"), "-h", sockets(), "-U", "postgres"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        all.emplace_back("postgres");
        return as_user(std::move(all));
    }
    /// The only row of an answer, or what went wrong.
    std::string query(const std::string& text) const {
        auto outcome = run(as_user(
            {program("psql"), "-h", sockets(), "-U", "postgres", "-XAtq", "-c", text, "postgres"}));
        return outcome.exit_code == 0 ? outcome.out.substr(0, outcome.out.find('\n')) : outcome.err;
    }
    Outcome check_sums() const {
        return run(as_user({program("pg_checksums"), "--check", "-D", data_}));
    }
    static bool succeeds(const std::vector<std::string>& command) {
        const auto outcome = run(command);
        CHECK_MESSAGE(outcome.exit_code == 0, command[0] << ": " << outcome.out << outcome.err);
        return outcome.exit_code == 0;
    }

private:
    std::string program(const char* name) const { return programs_ + name; }
    std::string sockets() const { return directory_.path() + "/sockets"; }
    /// It executes what it is told, so that the process id stays the same.
    static std::vector<std::string> as_user(std::vector<std::string> command) {
        command.insert(command.begin(), {"/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres",
                                         "--clear-groups", "--reset-env"});
        return command;
    }

    TemporaryDirectory directory_;
    std::string programs_, data_;
};

/// Where Debian's package has the programs of a version.
std::optional<std::string> programs_of_postgresql() {
    for (int version = 30; version > 9; --version) {
        const std::string folder = "/usr/lib/postgresql/" + std::to_string(version) + "/bin/";
        if (access((folder + "initdb").c_str(), X_OK) == 0 &&
            access((folder + "pgbench").c_str(), X_OK) == 0)
            return folder;
    }
    return std::nullopt;
}

/// "number of transactions actually processed: 12345"
std::optional<std::uint64_t> transactions(const std::string& said) {
    static const std::string before = "transactions actually processed: ";
    const auto at = said.find(before);
    if (at == std::string::npos) return {};
    return std::strtoull(said.c_str() + at + before.size(), nullptr, 10);
}

} // namespace

TEST_CASE("advise programs: a Redis server that is written to keeps every value") {
    if (!have_root()) return;
    const auto server = find_program({"/usr/bin/redis-server"});
    if (!server) return skip("redis-server is not installed");
    Rack rack;
    if (!rack.ready()) return;
    const TemporaryDirectory directory;
    const std::string socket_path = directory.path() + "/socket";
    const Background program({*server, "--port", "0", "--unixsocket", socket_path, "--save", "",
                              "--appendonly", "no", "--daemonize", "no", "--dir",
                              directory.path()});
    RedisClient client(socket_path);
    REQUIRE(client.connected());
    Keys keys;
    Large large;
    REQUIRE(large.write_all(client));
    for (std::size_t first = 0; first < Keys::count; first += Keys::batch)
        REQUIRE(keys.write(client, first));

    std::atomic<bool> stop = false;
    std::uint64_t batches = 0, refused = 0;
    std::thread writer([&] {
        std::mt19937_64 random{1};
        for (; !stop; ++batches, usleep(500)) {
            refused += !keys.write(client, random() % (Keys::count / Keys::batch) * Keys::batch);
            refused += !large.write(client, random() % Large::count);
        }
    });
    const auto toll = torment(program.pid());
    stop = true;
    writer.join();
    check_moved(toll);
    MESSAGE(batches * Keys::batch << " values were written meanwhile");
    CHECK(batches > 50);
    CHECK(refused == 0);
    CHECK(keys.wrong(client) == 0);
    CHECK(large.wrong(client) == 0);
}

TEST_CASE("advise programs: PostgreSQL under pgbench stays consistent") {
    if (!have_root()) return;
    const auto programs = programs_of_postgresql();
    if (!programs) return skip("postgresql is not installed");
    Rack rack;
    if (!rack.ready()) return;
    Database database(*programs);
    REQUIRE(database.create());
    Background server(database.server());
    REQUIRE(database.wait_until_ready());
    REQUIRE(Database::succeeds(database.pgbench({"-q", "-i", "-s", "4"})));

    Outcome bench;
    std::thread load([&] {
        const auto seconds = std::to_string(static_cast<int>(torment_seconds()) + 1);
        bench = run(database.pgbench({"-n", "-c", "4", "-j", "2", "-T", seconds}),
                    {.seconds = 10 * torment_seconds() + 60});
    });
    check_moved(torment(server.pid()));
    load.join();
    CHECK_MESSAGE(bench.exit_code == 0, bench.err);
    const auto done = transactions(bench.out);
    REQUIRE(done);
    MESSAGE(*done << " transactions meanwhile");
    CHECK(*done > 100);
    // Every transaction adds the same amount to an account, a teller and a branch, and notes it.
    const auto history = database.query("select count(*), sum(delta) from pgbench_history");
    std::ostringstream expected;
    expected << *done << '|';
    CHECK_MESSAGE(history.rfind(expected.str(), 0) == 0, history);
    const std::string sum = history.substr(history.find('|') + 1);
    CHECK(database.query("select sum(bbalance) from pgbench_branches") == sum);
    CHECK(database.query("select sum(tbalance) from pgbench_tellers") == sum);
    CHECK(database.query("select sum(abalance) from pgbench_accounts") == sum);

    server.signal(SIGINT); // PostgreSQL's fast shutdown
    const int status = server.wait(60);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    const auto sums = database.check_sums();
    CHECK_MESSAGE(sums.exit_code == 0, sums.out << sums.err);
    CHECK_MESSAGE(sums.out.find("Bad checksums:  0") != std::string::npos, sums.out);
}

} // namespace pagesift::live
