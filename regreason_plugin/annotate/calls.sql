-- The store of calls: one row a call, known by what determines its answer.
CREATE TABLE calls (
    conversation  TEXT NOT NULL,  -- sha256 of the conversation's text, 32 digits
    rater         TEXT NOT NULL,
    axis          TEXT NOT NULL,
    prompt        TEXT NOT NULL,  -- scale-1-5, ..., or merge
    prompt_sha256 TEXT NOT NULL,  -- of all the prompt says beside the conversation, 16 digits
    model         TEXT NOT NULL,
    sampling      TEXT NOT NULL,  -- JSON: temperature, max_tokens, ...
    id            TEXT NOT NULL,  -- of a conversation with this text
    state         TEXT NOT NULL,  -- ok, asking, or what went wrong
    score         INTEGER,
    explanation   TEXT,
    answer        TEXT,           -- what the server said, where it could not be used
    attempts      INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    answer_tokens INTEGER NOT NULL DEFAULT 0,
    cost          REAL NOT NULL DEFAULT 0,  -- of all its attempts, in the prices' currency
    reserved      REAL NOT NULL DEFAULT 0,  -- while asking: the most it can cost
    worker        TEXT,           -- while asking: the process
    finished      TEXT,           -- UTC
    PRIMARY KEY (conversation, rater, axis, prompt, prompt_sha256, model, sampling)
) WITHOUT ROWID;
CREATE INDEX calls_asking ON calls (worker) WHERE worker IS NOT NULL;
CREATE TABLE spending (spent REAL NOT NULL, reserved REAL NOT NULL);
INSERT INTO spending VALUES (0, 0);
CREATE TRIGGER spending_new AFTER INSERT ON calls BEGIN
    UPDATE spending SET spent = spent + new.cost, reserved = reserved + new.reserved;
END;
CREATE TRIGGER spending_changed AFTER UPDATE OF cost, reserved ON calls BEGIN
    UPDATE spending SET spent = spent + new.cost - old.cost,
                        reserved = reserved + new.reserved - old.reserved;
END;
