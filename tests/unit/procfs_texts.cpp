// SPDX-License-Identifier: MIT
#include "pagesift/procfs.hpp"

#include <doctest/doctest.h>

using namespace pagesift::procfs;
using namespace std::string_literals;

TEST_CASE("status: the fields that matter are read, in bytes") {
    const auto status = parse_status("Name:\tcat\nUmask:\t0022\nState:\tS (sleeping)\n"
                                     "Tgid:\t4711\nPPid:\t1\nTracerPid:\t0\n"
                                     "Uid:\t1000\t1001\t1002\t1003\nVmSize:\t    3456 kB\n"
                                     "VmRSS:\t     512 kB\nVmPTE:\t      44 kB\n"
                                     "VmSwap:\t       8 kB\nThreads:\t3\n"
                                     "SigPnd:\t0000000000000100\nShdPnd:\t0000000000000001\n"
                                     "CapEff:\t000001ffffffffff\nKthread:\t0\n");
    CHECK(status.name == "cat");
    CHECK(status.state == 'S');
    CHECK(status.tgid == 4711);
    CHECK(status.parent == 1);
    CHECK(status.tracer == 0);
    CHECK(status.uid == 1000);
    CHECK(status.euid == 1001);
    CHECK(status.vm_size_bytes == 3456 * 1024);
    CHECK(status.vm_rss_bytes == 512 * 1024);
    CHECK(status.vm_pte_bytes == 44 * 1024);
    CHECK(status.vm_swap_bytes == 8 * 1024);
    CHECK(status.threads == 3);
    CHECK(status.effective_capabilities == 0x1ffffffffff);
    CHECK(status.pending_signals == 0x100);
    CHECK_FALSE(status.kernel_thread);
    CHECK(status.has_memory());
}

TEST_CASE("status: a kernel thread says so and has no memory") {
    const auto status = parse_status("Name:\tkworker/0:1\nState:\tI (idle)\nKthread:\t1\n");
    CHECK(status.kernel_thread);
    CHECK_FALSE(status.has_memory());
    CHECK_FALSE(status.vm_pte_bytes);
}

TEST_CASE("status: what is missing, cut or no number stays empty") {
    CHECK_FALSE(parse_status("").tgid);
    CHECK(parse_status("").state == '?');
    CHECK_FALSE(parse_status("VmRSS:\t").vm_rss_bytes);
    CHECK_FALSE(parse_status("VmRSS:\t12").vm_rss_bytes);
    CHECK_FALSE(parse_status("VmRSS:\t12 MB\n").vm_rss_bytes);
    CHECK_FALSE(parse_status("VmRSS:\t18014398509481984 kB\n").vm_rss_bytes);
    CHECK_FALSE(parse_status("Tgid:\t99999999999\n").tgid);
    CHECK_FALSE(parse_status("Uid:\n").uid);
    CHECK_FALSE(parse_status("CapEff:\txyz\n").effective_capabilities);
}

TEST_CASE("status: a name cannot make up a line, because the kernel escapes its newlines") {
    const auto status = parse_status("Name:\tx\\nVmRSS:\t1 kB\nVmRSS:\t     512 kB\n");
    CHECK(status.vm_rss_bytes == 512 * 1024);
}

TEST_CASE("stat: the start time is field 22, whatever the name holds") {
    const auto stat = [](const std::string& name) {
        return "42 (" + name + ") S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 100 9\n";
    };
    CHECK(parse_start_time(stat("cat")) == 987654);
    CHECK(parse_start_time(stat("")) == 987654);
    CHECK(parse_start_time(stat(") R 1 2 3")) == 987654);
    CHECK(parse_start_time(stat("((a b) c\n)")) == 987654);
    CHECK(parse_start_time(stat("\xff\x1b 1 2 3 4 5")) == 987654);
}

TEST_CASE("stat: a text that is too short or no number has no start time") {
    CHECK_FALSE(parse_start_time(""));
    CHECK_FALSE(parse_start_time("42 cat S 1"));
    CHECK_FALSE(parse_start_time("42 (cat) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0"));
    CHECK_FALSE(parse_start_time("42 (cat) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x 1"));
    CHECK_FALSE(parse_start_time(")"));
}

TEST_CASE("stat: who a process is, whatever its name holds") {
    const std::string rest =
        " S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 40960 9 1 2\n";
    for (const std::string name :
         {"cat", "", ") R 1 2 3", "((a b) c\n)", "\xff\x1b 1 2", "\n42 (x) R 1"}) {
        const auto stat = parse_stat("42 (" + name + ")" + rest);
        REQUIRE(stat);
        CHECK(stat->comm == name);
        CHECK(stat->state == 'S');
        CHECK(stat->parent == 7);
        CHECK(stat->threads == 3);
        CHECK(stat->start_time == 987654);
        CHECK(stat->vm_size_bytes == 40960);
        CHECK(stat->rss_pages == 9);
        CHECK_FALSE(stat->kernel_thread());
    }
    const auto thread =
        parse_stat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 1");
    REQUIRE(thread);
    CHECK(thread->kernel_thread());
}

TEST_CASE("stat: half a line says nothing") {
    CHECK_FALSE(parse_stat(""));
    CHECK_FALSE(parse_stat(")("));
    CHECK_FALSE(parse_stat("42 (cat)"));
    CHECK_FALSE(parse_stat("42 (cat) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 100"));
    CHECK_FALSE(parse_stat("42 (cat) S x 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1"));
}

TEST_CASE("key values: ksm_stat holds numbers of either sign, and lines that are none") {
    const auto values = parse_key_values("ksm_rmap_items 12\nksm_zero_pages 3\n"
                                         "ksm_process_profit -4096\nksm_merge_any: no\n"
                                         "ksm_future 18446744073709551615\n\nlonely\n");
    CHECK(values.at("ksm_rmap_items") == 12);
    CHECK(values.at("ksm_process_profit") == -4096);
    CHECK_FALSE(values.contains("ksm_merge_any:"));
    CHECK_FALSE(values.contains("ksm_future"));
    CHECK(values.size() == 3);
}

TEST_CASE("swaps: rows under the heading, sizes in bytes") {
    const auto areas =
        parse_swaps("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
                    "/dev/zram0                              partition\t8388604\t\t128"
                    "\t\t-2\n"
                    "/var/a\\040b\\040(deleted)              file\t\t1024\t\t0\t\t5\n"
                    "short row\n");
    REQUIRE(areas.size() == 2);
    CHECK(areas[0].name == "/dev/zram0");
    CHECK(areas[0].kind == "partition");
    CHECK(areas[0].size_bytes == std::uint64_t{8388604} * 1024);
    CHECK(areas[0].used_bytes == 128 * 1024);
    CHECK(areas[0].priority == -2);
    CHECK(areas[1].kind == "file");
}

TEST_CASE("swaps: no areas, no heading and sizes beyond 64 bits are no rows") {
    CHECK(parse_swaps("").empty());
    CHECK(parse_swaps("Filename Type Size Used Priority\n").empty());
    CHECK(parse_swaps("Filename Type Size Used Priority\n/x file 18014398509481984 0 1\n").empty());
}

TEST_CASE("mountinfo: device and file-system type, optional fields in between or not") {
    const auto types =
        parse_mountinfo("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw\n"
                        "37 35 0:25 / /dev/shm rw - tmpfs tmpfs rw\n"
                        "38 35 0:26 / /we\\040ird rw - fuse.sshfs a - b rw\n"
                        "39 35 broken / / rw - ext4 x rw\n"
                        "40 35 0:27 / / rw ext4 x rw\n");
    CHECK(types.at(Device{98, 0}) == "ext3");
    CHECK(types.at(Device{0, 25}) == "tmpfs");
    CHECK(types.at(Device{0, 26}) == "fuse.sshfs");
    CHECK(types.size() == 3);
}

TEST_CASE("bracketed: the chosen word, or nothing") {
    CHECK(parse_bracketed("always [madvise] never\n") == "madvise");
    CHECK(parse_bracketed("[always] madvise never") == "always");
    CHECK(parse_bracketed("always madvise never") == "");
    CHECK(parse_bracketed("always [madvise") == "");
    CHECK(parse_bracketed("] [") == "");
    CHECK(parse_bracketed("") == "");
}

TEST_CASE("procfs: pressure is the share of the last ten seconds") {
    CHECK(parse_pressure("some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 "
                         "avg60=0.00 avg300=0.00 total=0\n") == 12.34);
    CHECK(parse_pressure("some avg10=0.00 avg60=0.00\n") == 0.0);
    CHECK(parse_pressure("some avg10=100.00\n") == 100.0);
    for (const char* text :
         {"", "some", "full avg10=1.00\n", "some avg10=\n", "some avg10=x.yz\n", "some avg10=1\n",
          "some avg10=1.5\n", "some avg10=900.00\n", "some avg60=1.00 avg10=2.00\n"})
        CHECK_FALSE(parse_pressure(text));
}

TEST_CASE("cgroup: each hierarchy, with its controllers and the path") {
    const auto groups =
        parse_cgroup("12:cpu,cpuacct:/a:b/c\n4:memory:/\n1:name=systemd:/x\n0::/d e\n");
    REQUIRE(groups.size() == 4);
    CHECK(groups[0].has("cpu"));
    CHECK(groups[0].has("cpuacct"));
    CHECK_FALSE(groups[0].has("memory"));
    CHECK_FALSE(groups[0].unified());
    CHECK(groups[0].path == "/a:b/c");
    CHECK(groups[1].path == "/");
    CHECK(groups[2].has("name=systemd"));
    CHECK(groups[3].unified());
    CHECK(groups[3].path == "/d e");
    for (const auto* text : {"", "\n", "0::", "0:", "x::/a", "::/a", "0::a\n", "0:memory"})
        CHECK(parse_cgroup(text).empty());
}
