/* Takes a protection out of keyringd (LD_PRELOAD): nothing is ever synced. */
int fsync(int file) { return (void)file, 0; }
int fdatasync(int file) { return (void)file, 0; }
