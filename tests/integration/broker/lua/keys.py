"""The keys of the queue ``mail``, written out, as `jobs/broker/lua/README.md` has them."""

LISTS = ("mail", "mail\x06\x163", "mail\x06\x166", "mail\x06\x169")
#: Which of them each priority has, as the scripts are told.
PLACES = "0001112223"
INFLIGHT = "{mail}:inflight:w1"
CLAIMED = "{mail}:claimed:w1"
CONSUMERS = "{mail}:consumers"
DUE = "{mail}:due"
DEAD = "{mail}:dead"
BELL = "{mail}:bell"
REVOKED = "{mail}:revoked"
PAUSED = "{mail}:paused"
METRICS = "{mail}:metrics:"
PROGRESS = "{mail}:progress:id-1"
RATE = "{limit:imports}:rate"
HELD = "{limit:imports}:held"
WAITING = "{limit:imports}:waiting"
LOCK = "{unique:import:7}"
