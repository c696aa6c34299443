-- The store of calls: one row per call, keyed by everything that determines the answer.
CREATE TABLE calls (
    conversation  TEXT NOT NULL,  -- sha256 of the conversation's text, 32 digits
    rater         TEXT NOT NULL,
    axis          TEXT NOT NULL,
    prompt        TEXT NOT NULL,  -- the prompt's name: scale-1-5, ..., merge or explain
    prompt_sha256 TEXT NOT NULL,  -- sha256 of the prompt without the conversation, 16 digits
    model         TEXT NOT NULL,  -- the model's name on the server
    sampling      TEXT NOT NULL,  -- JSON: temperature, max_tokens, ...
    id            TEXT NOT NULL,  -- id of a conversation with this text
    state         TEXT NOT NULL,  -- ok, asking, or the name of a fault
    score         INTEGER,        -- on the scale of the prompt
    explanation   TEXT,
    answer        TEXT,           -- start of the server's text if it could not be used or was mended
    attempts      INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    answer_tokens INTEGER NOT NULL DEFAULT 0,
    cost          REAL NOT NULL DEFAULT 0,  -- cost of all attempts, in the prices' currency
    reserved      REAL NOT NULL DEFAULT 0,  -- while asking: the highest possible cost
    worker        TEXT,           -- while asking: the process or the batch that makes the call
    finished      TEXT,           -- time of the answer, UTC
    served        TEXT,           -- the model's name in the server's reply
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
