// Loaded into redis-server (LD_PRELOAD), puts its calendar clock under a test's
// control: the file named by REDISTEST_CLOCK holds the time in microseconds.
// The monotonic clock, which Redis' event loop runs on, is left alone.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *micros;

__attribute__((constructor)) static void map_clock(void) {
	int fd = open(getenv("REDISTEST_CLOCK"), O_RDONLY);
	void *page = mmap(NULL, sizeof *micros, PROT_READ, MAP_SHARED, fd, 0);
	if (fd < 0 || page == MAP_FAILED) abort();
	micros = page;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
	if (id != CLOCK_REALTIME || !micros) return syscall(SYS_clock_gettime, id, ts);
	int64_t now = *micros;
	ts->tv_sec = now / 1000000;
	ts->tv_nsec = now % 1000000 * 1000;
	return 0;
}

int gettimeofday(struct timeval *tv, void *tz) {
	struct timespec ts;
	(void)tz;
	if (clock_gettime(CLOCK_REALTIME, &ts)) return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}
