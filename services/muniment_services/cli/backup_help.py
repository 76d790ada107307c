"""What `muniment backup --help` teaches. Texts only, so that help comes at once."""

from __future__ import annotations

BACKUP = """Make, check and restore backups of log, artifacts and keys.

A backup is all that cannot be made anew: the log up to a cut, the files that
it speaks of, and the keys, sealed under a passphrase. Projections are built
from the log. Many backups of one log share a place, a folder or a bucket
(s3://, gs://, az://): each takes only what is new.

  export MUNIMENT_BACKUP_PASSPHRASE=…
  muniment backup create --to s3://bucket/backups
  muniment backup verify s3://bucket/backups
  muniment backup restore s3://bucket/backups --data-dir ./restored
"""

BACKUP_CREATE = """Make a backup, beside the running server.

Run it where the data folder is, or with the settings of a server on Kafka
(--log, --kafka-…, MUNIMENT_ARTIFACTS, MUNIMENT_KEYS). Reads and writes go on;
what was acknowledged before it began is in it. A backup that was broken off is
gone on with by the next one.

Keys say who the principals are. They are sealed under a passphrase, which is
in MUNIMENT_BACKUP_PASSPHRASE or in the file that --passphrase-file names; keep
it elsewhere than the backups. One place has one passphrase.

Exit status 1 when a file was not as the log says; the backup is made all the
same, and names it.

  muniment backup create --to /backups/muniment
  muniment backup create --to s3://bucket/backups --without-keys
  muniment backup create --to /backups --config server.toml --json
"""

BACKUP_LIST = """List the backups in a place, the newest first.

  muniment backup list /backups/muniment
  muniment backup list s3://bucket/backups --json
"""

BACKUP_VERIFY = """Check a backup: every byte that it names is read and compared.

The log: segments without holes, every record decoded and checked as `muniment
verify` does. The files: by their SHA-256, and that they are those of the log.
The keys: by their SHA-256; opened too, if the passphrase is given.

Exit status 1 when anything is wrong. No server and no log is needed.

  muniment backup verify /backups/muniment
  muniment backup verify s3://bucket/backups --backup 001796000000000 --json
"""

BACKUP_RESTORE = """Restore a backup into an empty data folder, or an empty Kafka.

Every file is verified as it is read; the log is read back and compared at the
end. A restore that was broken off goes on when it is run again: start no
server before it says that all is restored. Keys of principals that were erased
after the backup was made do not come back, as far as a later backup in the
same place knows of it.

The restored log has an id of its own, so that its own backups and snapshots
are not taken for those of the old one.

  muniment backup restore /backups/muniment --data-dir ./restored
  muniment backup restore s3://bucket/backups --kafka-bootstrap k:9092
  muniment backup restore /backups --data-dir ./r --backup 001796000000000
"""
