/* Preloaded into function processes whose stack's clock was put ahead: their wall clock is the machine's plus what the stack says.
   LOCAL_CLOCK names a file of eight bytes, the milliseconds ahead in the machine's byte order. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LOCAL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    /* A process at the wrong time would prove nothing. */
    if (page == MAP_FAILED)
        _exit(70);
    close(file);
    ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int answer = (int)syscall(SYS_clock_gettime, clock, now);
    if (answer == 0 && clock == CLOCK_REALTIME && ahead) {
        now->tv_sec += *ahead / 1000;
        now->tv_nsec += *ahead % 1000 * 1000000;
        if (now->tv_nsec >= 1000000000) {
            now->tv_sec += 1;
            now->tv_nsec -= 1000000000;
        }
    }
    return answer;
}
