-- Schema 1. Every table has the same first columns: `seq` orders by when a row was first put,
-- `body` is the record as JSON, times are microseconds since 1970. The others are searched by.

CREATE TABLE negotiation (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  counterparty TEXT NOT NULL,
  peer_pid TEXT,
  role TEXT NOT NULL,
  state TEXT NOT NULL
) STRICT;
CREATE TABLE transfer (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  counterparty TEXT NOT NULL,
  peer_pid TEXT,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  agreement TEXT NOT NULL
) STRICT;
CREATE TABLE transfer_detail (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  token_digest TEXT UNIQUE
) STRICT;
CREATE TABLE agreement (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  counterparty TEXT NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  dataset TEXT NOT NULL
) STRICT;
CREATE TABLE use_taken (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  agreement TEXT NOT NULL
) STRICT;
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  process TEXT NOT NULL,
  next_attempt INTEGER NOT NULL
) STRICT;
CREATE TABLE wake (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE TABLE flow (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  transfer TEXT NOT NULL
) STRICT;
CREATE TABLE dataset (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE policy (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE offer (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  dataset TEXT NOT NULL REFERENCES dataset (id)
) STRICT;
CREATE TABLE publication (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  id TEXT UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  process TEXT,
  agreement TEXT,
  counterparty TEXT,
  event TEXT NOT NULL
) STRICT;

-- A counterparty's own identifier names one process of ours per role: a repeated first message is found.
CREATE UNIQUE INDEX negotiation_by_peer ON negotiation (counterparty, peer_pid, role);
CREATE UNIQUE INDEX transfer_by_peer ON transfer (counterparty, peer_pid, role);
CREATE INDEX negotiation_by_state ON negotiation (counterparty, role, state);
CREATE INDEX transfer_by_state ON transfer (counterparty, role, state);
CREATE INDEX transfer_by_agreement ON transfer (agreement);
CREATE INDEX use_taken_by_agreement ON use_taken (agreement);
CREATE INDEX outbox_by_process ON outbox (process);
CREATE INDEX outbox_by_next_attempt ON outbox (next_attempt);
CREATE INDEX wake_by_time ON wake (at);
CREATE INDEX flow_by_transfer ON flow (transfer);
CREATE INDEX offer_by_dataset ON offer (dataset);
CREATE INDEX audit_by_process ON audit (process);
CREATE INDEX audit_by_agreement ON audit (agreement);
