// SPDX-License-Identifier: MIT
#include "pagesift/snapshot.hpp"

#include <atomic>
#include <chrono>
#include <doctest/doctest.h>
#include <memory>
#include <stdexcept>

using namespace pagesift::snapshot;

TEST_CASE("in order: results come out in the order of their numbers, however long each takes") {
    for (const unsigned jobs : {1u, 2u, 7u}) {
        std::vector<std::size_t> delivered;
        in_order(
            jobs, 200,
            [](std::size_t i) {
                if (i % 17 == 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
                return i;
            },
            [&](std::size_t i) { delivered.push_back(i); });
        REQUIRE(delivered.size() == 200);
        for (std::size_t i = 0; i < delivered.size(); ++i) CHECK(delivered[i] == i);
    }
}

TEST_CASE("in order: nothing to do calls nothing") {
    in_order(
        4, 0, [](std::size_t) -> int { throw std::logic_error{"called"}; },
        [](int) { throw std::logic_error{"called"}; });
}

TEST_CASE("in order: all delivering happens on the thread that called") {
    const auto caller = std::this_thread::get_id();
    in_order(
        3, 50, [](std::size_t i) { return i; },
        [&](std::size_t) { CHECK(std::this_thread::get_id() == caller); });
}

TEST_CASE("in order: what a worker throws comes out, and what was done before it was delivered") {
    for (const unsigned jobs : {1u, 4u}) {
        std::vector<std::size_t> delivered;
        const auto run = [&] {
            in_order(
                jobs, 100,
                [](std::size_t i) {
                    if (i == 50) throw std::runtime_error{"fifty"};
                    return i;
                },
                [&](std::size_t i) { delivered.push_back(i); });
        };
        CHECK_THROWS_WITH_AS(run(), "fifty", std::runtime_error);
        CHECK(delivered.size() <= 50);
        for (std::size_t i = 0; i < delivered.size(); ++i) CHECK(delivered[i] == i);
    }
}

TEST_CASE("in order: what delivering throws stops the workers") {
    for (const unsigned jobs : {1u, 4u}) {
        std::atomic<std::size_t> worked = 0;
        const auto run = [&] {
            in_order(
                jobs, 100000,
                [&](std::size_t i) {
                    ++worked;
                    return i;
                },
                [&](std::size_t i) {
                    if (i == 3) throw std::runtime_error{"enough"};
                });
        };
        CHECK_THROWS_WITH_AS(run(), "enough", std::runtime_error);
        CHECK(worked < 1000);
    }
}

TEST_CASE("in order: at most four results a thread wait for delivery") {
    constexpr unsigned jobs = 3;
    std::atomic<std::size_t> delivered = 0;
    std::atomic<std::size_t> furthest = 0;
    in_order(
        jobs, 300,
        [&](std::size_t i) {
            const std::size_t ahead = i - std::min<std::size_t>(i, delivered);
            std::size_t known = furthest;
            while (known < ahead && !furthest.compare_exchange_weak(known, ahead)) {
            }
            return i;
        },
        [&](std::size_t) {
            if (delivered % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
            ++delivered;
        });
    // The result being delivered has left the window already.
    CHECK(furthest <= 4 * jobs + 1);
}

TEST_CASE("in order: results that only move are passed on") {
    std::size_t sum = 0;
    in_order(
        2, 10, [](std::size_t i) { return std::make_unique<std::size_t>(i); },
        [&](std::unique_ptr<std::size_t>&& i) { sum += *i; });
    CHECK(sum == 45);
}
