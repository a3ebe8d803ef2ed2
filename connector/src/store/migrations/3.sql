-- Schema 3: what every commit wrote and nothing asked for. The outbox is read whole, the audit log's lines have no
-- identifier, and a line without an agreement is not looked for by it.

DROP INDEX outbox_by_process;
DROP INDEX outbox_by_next_attempt;
ALTER TABLE outbox DROP COLUMN process;
ALTER TABLE outbox DROP COLUMN next_attempt;

DROP INDEX audit_by_process;
DROP INDEX audit_by_agreement;
ALTER TABLE audit RENAME TO audit_before;
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  id TEXT,
  version INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  body TEXT NOT NULL,
  process TEXT,
  agreement TEXT,
  counterparty TEXT,
  event TEXT NOT NULL
) STRICT;
INSERT INTO audit SELECT * FROM audit_before;
DROP TABLE audit_before;
CREATE INDEX audit_by_process ON audit (process) WHERE process IS NOT NULL;
CREATE INDEX audit_by_agreement ON audit (agreement) WHERE agreement IS NOT NULL;
