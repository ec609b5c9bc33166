-- SPDX-License-Identifier: MIT
-- Six scans of a history, written by hand, with some of the columns only: the rest is unknown.
-- 1 and 2: the same processes an hour later. 100 "grower" has 64 MiB more, half of it in swap; 200
-- "shrinker" gave 8 MiB back; 300 is the same; 400 has a hostile name and was cut off in scan 2; 500
-- is gone, and its number is another process' own; 600 was seen at depth totals in scan 2.
-- 3: depth pages, with another lens, after a restart. 4 and 5: by name. 6: another machine.
PRAGMA application_id = 0x70736674;
PRAGMA user_version = 1;
CREATE TABLE scan (
  id INTEGER PRIMARY KEY, host TEXT, kernel TEXT, boot TEXT, time REAL, elapsed_seconds REAL,
  cpu_seconds REAL, depth TEXT, per TEXT, lens TEXT, chosen INTEGER, answered INTEGER,
  partial INTEGER, ended INTEGER, denied INTEGER, skipped INTEGER, left_out INTEGER,
  interrupted INTEGER);
CREATE TABLE process (
  id INTEGER PRIMARY KEY, host TEXT, boot TEXT, pid INTEGER, start_time_ticks INTEGER, comm TEXT,
  exe TEXT, "user" TEXT, cgroup TEXT);
CREATE TABLE record (
  id INTEGER PRIMARY KEY, scan INTEGER, process INTEGER, processes INTEGER, depth TEXT, lens TEXT,
  complete INTEGER, rss_bytes INTEGER, swap_bytes INTEGER, unknown_state_bytes INTEGER,
  present_bytes INTEGER, swapped_bytes INTEGER, zero_filled_bytes INTEGER, anon_bytes INTEGER,
  empty_tables INTEGER);
CREATE TABLE total (
  scan INTEGER PRIMARY KEY, processes INTEGER, unknown_processes INTEGER, rss_bytes INTEGER,
  swap_bytes INTEGER, unknown_state_bytes INTEGER, present_bytes INTEGER, swapped_bytes INTEGER,
  zero_filled_bytes INTEGER, anon_bytes INTEGER, empty_tables INTEGER);
CREATE TABLE gap (
  scan INTEGER, source TEXT, reason TEXT, remedy TEXT, incomplete INTEGER, records INTEGER);

INSERT INTO scan VALUES
 (1,'made-up','6.18.0','b1',1795262400,1,0.5,'content','process','exact',6,6,0,0,0,0,0,0),
 (2,'made-up','6.18.0','b1',1795266000,1,0.5,'content','process','exact',6,6,1,0,0,0,0,0),
 (3,'made-up','6.18.0','b2',1795269600,1,0.5,'pages','process','proc',1,1,0,0,0,0,2,0),
 (4,'made-up','6.18.0','b2',1795269601,1,0.5,'pages','comm','proc',3,3,0,0,0,0,0,0),
 (5,'made-up','6.18.0','b2',1795269602,1,0.5,'pages','comm','proc',2,2,0,0,1,0,0,0),
 (6,'o\x1b[31mther','6.18.0','b9',1795269603,1,0.5,'pages','process','proc',1,1,0,0,0,0,0,0);

INSERT INTO process VALUES
 (1,'made-up','b1',100,1000,'grower','/usr/bin/grower','root','/a.service'),
 (2,'made-up','b1',200,1001,'shrinker','/usr/bin/shrinker','root','/b.service'),
 (3,'made-up','b1',300,1002,'steady','/usr/bin/steady','root','/b.service'),
 (4,'made-up','b1',400,1003,'a"b,\x0d\x0a\x1b[31m\xff\\n','/tmp/=cmd|\u{202e}',NULL,'/c\x0a'),
 (5,'made-up','b1',500,1004,'gone','/usr/bin/gone','root','/'),
 (6,'made-up','b1',500,9000,'new','/usr/bin/new','root','/'),
 (7,'made-up','b1',600,1005,'large','/usr/bin/large','root','/'),
 (8,'made-up','b2',100,1000,'grower','/usr/bin/grower','root','/a.service'),
 (9,'made-up','b2',NULL,NULL,'grower',NULL,'root','/a.service'),
 (10,'made-up','b2',NULL,NULL,'shrinker',NULL,'root',NULL),
 (11,'o\x1b[31mther','b9',100,1000,'grower','/usr/bin/grower','root','/a.service');

INSERT INTO record (scan, process, processes, depth, lens, complete, rss_bytes, swap_bytes,
  unknown_state_bytes, present_bytes, swapped_bytes, zero_filled_bytes, anon_bytes, empty_tables)
VALUES
 (1,1,1,'content','exact',1, 16777216,       0,0, 16777216,       0, 4194304,12582912,0),
 (1,2,1,'content','exact',1, 20971520, 1048576,0, 20971520, 1048576, 8388608,12582912,7),
 (1,3,1,'content','exact',1,  4194304,       0,0,  4194304,       0,       0, 4194304,0),
 (1,4,1,'content','exact',1,  2097152,       0,0,  2097152,       0,       0, 2097152,0),
 (1,5,1,'content','exact',1,  1048576,   65536,0,  1048576,   65536,       0, 1048576,0),
 (1,7,1,'content','exact',1,134217728,       0,0,134217728,       0,       0,134217728,0),
 (2,1,1,'content','exact',1, 50331648,33554432,0, 50331648,33554432, 1048576,49283072,2),
 (2,2,1,'content','exact',1, 12582912, 1048576,0, 12582912, 1048576,       0,12582912,7),
 (2,3,1,'content','exact',1,  4194304,       0,0,  4194304,       0,       0, 4194304,0),
 (2,4,1,'content','exact',0,  1048576,       0,0,  1048576,       0,       0, 1048576,0),
 (2,6,1,'content','exact',1,  3145728,       0,0,  3145728,       0, 2097152, 1048576,0),
 (2,7,1,'totals','rollup',1,135266304,       0,NULL,NULL,NULL,NULL,NULL,NULL),
 (3,8,1,'pages','proc',1, 50331648,33554432,0, 50331648,33554432,NULL,50331648,2),
 (4,9,2,'pages','proc',1, 50331648,33554432,0, 50331648,33554432,NULL,50331648,2),
 (4,10,1,'pages','proc',1, 12582912,1048576,4096, 12582912, 1048576,NULL,12582912,7),
 (5,9,1,'pages','proc',1, 33554432,NULL,0, 33554432,33554432,NULL,33554432,2),
 (5,10,1,'pages','proc',1, 12582912,1052672,0, 12582912, 1052672,NULL,12582912,7),
 (6,11,1,'pages','proc',1, 50331648,33554432,0, 50331648,33554432,NULL,50331648,2);

INSERT INTO total VALUES
 (1,6,0,179306496, 1114112,0,179306496, 1114112,12582912,166723584,7),
 (2,6,1,206569472,34603008,0, 71303168,34603008, 3145728, 68157440,9),
 (3,1,0, 50331648,33554432,0, 50331648,33554432,NULL,50331648,2),
 (4,3,0, 62914560,34603008,4096, 62914560,34603008,NULL,62914560,9),
 (5,2,1, 46137344, 1052672,0, 46137344,34607104,NULL,46137344,9),
 (6,1,0, 50331648,33554432,0, 50331648,33554432,NULL,50331648,2);
