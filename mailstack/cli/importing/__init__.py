"""`mailstack maildrop import`: mail out of files of another server, under the unique-ids it had there."""
