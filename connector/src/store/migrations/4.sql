-- Schema 4: uses are counted as they are taken.

CREATE TABLE use_total (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
INSERT INTO use_total (id, version, created, updated, body)
  SELECT agreement, 1, min(created), max(updated), json_object('agreement', agreement, 'uses', count(*))
  FROM use_taken GROUP BY agreement;
DROP INDEX use_taken_by_agreement;
ALTER TABLE use_taken DROP COLUMN agreement;
