-- Schema 2: facts that policies ask for, duties that they cause, what was received, quantities that were taken.

CREATE TABLE fact (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  register TEXT NOT NULL,
  subject TEXT NOT NULL
) STRICT;
CREATE TABLE duty (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  agreement TEXT NOT NULL,
  transfer TEXT,
  state TEXT NOT NULL,
  next_attempt INTEGER
) STRICT;
CREATE TABLE received (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  agreement TEXT NOT NULL,
  path TEXT NOT NULL
) STRICT;
CREATE TABLE quantity_taken (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE quantity_total (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;

CREATE INDEX fact_by_subject ON fact (register, subject);
CREATE INDEX duty_by_agreement ON duty (agreement);
CREATE INDEX duty_by_state ON duty (state);
-- A duty that is settled has no next attempt, and is not in the index.
CREATE INDEX duty_by_next_attempt ON duty (next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX received_by_agreement ON received (agreement);
CREATE INDEX received_by_path ON received (path);
