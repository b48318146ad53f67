// The reader of ledger_reader.py in JavaScript: node ledger_reader.mjs DATABASE
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

const db = new DatabaseSync(process.argv[2], { timeout: 60000 });
let ended = false;
let states = 0;
let last = 0;

function ensure(fact, what) {
  if (!fact) {
    throw new Error(what);
  }
}

function read(check) {
  let expected = null;
  let seq = 0;
  db.exec("begin");
  const rows = db.prepare("select seq, prev, payload, hash from ledger order by seq");
  for (const row of rows.iterate()) {
    const follows = expected === null || (row.seq === seq + 1 && row.prev === expected);
    ensure(follows, `broken before ${row.seq}`);
    const hash = createHash("sha256");
    hash.update(`${row.prev}:${row.seq}:`).update(row.payload);
    ensure(hash.digest("hex") === row.hash, `${row.seq} is not what it was`);
    [seq, expected] = [row.seq, row.hash];
  }
  const count = db.prepare("select count(*) as n from ledger not indexed").get().n;
  const indexed = "select count(*) as n from ledger indexed by by_hash where hash > ''";
  ensure(count === db.prepare(indexed).get().n, "index differs");
  if (check) {
    const found = db.prepare("pragma integrity_check").get().integrity_check;
    ensure(found === "ok", found);
  }
  db.exec("commit");
  return seq;
}

function step() {
  if (ended && states > 0) {
    return;
  }
  const begun = Date.now();
  const found = read(states % 10 === 0);
  ensure(found >= last, "it never goes back");
  states += 1;
  last = found;
  writeSync(1, `${last}\n`);
  // Not always in a transaction, however slow the machine: the file has to change.
  setTimeout(step, Math.max(2, Date.now() - begun));
}

process.stdin.on("end", () => {
  ended = true;
});
process.stdin.resume();
writeSync(1, "ready\n");
step();
