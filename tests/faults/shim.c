/* Stands between a process and the C library, and lets one chosen call that changes files under a folder go wrong.

   Loaded with LD_PRELOAD; armed from Python (shim.py) in a forked child. Calls are counted from 1 in the order in which
   the process makes them. Reading is never disturbed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, KILL, FULL, READ_ONLY, INPUT_OUTPUT, CLOCK };

static char root[4096];
static int mode = COUNT, report = -1;
static long chosen, calls, clock_shift;

void fault_arm(const char *folder, int what, long at, int descriptor) {
    snprintf(root, sizeof root, "%s", folder);
    mode = what, chosen = at, calls = 0, clock_shift = 0, report = descriptor;
}

long fault_calls(void) { return calls; }

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

static int inside(const char *path) {
    char whole[8192];
    if (!root[0] || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, 4096)) return 0;
        snprintf(whole + strlen(whole), 4096, "/%s", path);
        path = whole;
    }
    size_t length = strlen(root); /* beside FOLDER lies its FOLDER.log, which is not inside */
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, 4095);
    path[length > 0 ? length : 0] = 0;
    return path;
}

/* errno of this call; 0 where it goes on as usual, -1 where the process is to be killed */
static int fault(const char *call, const char *path, int takes_space) {
    if (!inside(path)) return 0;
    long now = __sync_add_and_fetch(&calls, 1);
    int first = now == chosen;
    if (mode == COUNT && report >= 0 && takes_space) dprintf(report, "%ld=takes space\n", now);
    if (mode == COUNT || now < chosen) return 0;
    if (first && report >= 0) dprintf(report, "struck=%s %s\n", call, path + strlen(root));
    switch (mode) {
    case KILL: return first ? -1 : 0;
    case FULL: return takes_space ? ENOSPC : 0;
    case READ_ONLY: return EROFS;
    case INPUT_OUTPUT: return first ? EIO : 0;
    case CLOCK: if (first) clock_shift = 86400; return 0;
    }
    return 0;
}

static int fails(const char *call, const char *path, int takes_space) {
    int code = fault(call, path, takes_space);
    if (code < 0) kill(getpid(), SIGKILL), pause();
    if (code) errno = code;
    return code;
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); int mask = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; va_end(rest); \
        if (writes(flags) && fails("open", path, access(path, F_OK))) return -1; \
        return real(path, flags, mask); \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; va_start(rest, flags); int mask = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; va_end(rest); \
        if (writes(flags) && fails("open", path, access(path, F_OK))) return -1; \
        return real(folder, path, flags, mask); \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

/* A kill or a full disk comes in the middle of a write: half of the bytes have arrived. */
ssize_t write(int descriptor, const void *bytes, size_t size) {
    REAL(write);
    char path[4096];
    if (!root[0] || descriptor == report) return real(descriptor, bytes, size);
    int code = fault("write", path_of(descriptor, path), 1);
    if (code && code != EROFS && size > 1 && calls == chosen) real(descriptor, bytes, size / 2);
    if (code < 0) kill(getpid(), SIGKILL), pause();
    if (!code) return real(descriptor, bytes, size);
    errno = code;
    return -1;
}

int fsync(int descriptor) {
    REAL(fsync);
    char path[4096];
    return fails("fsync", path_of(descriptor, path), 0) ? -1 : real(descriptor);
}

int ftruncate64(int descriptor, off64_t size) {
    REAL(ftruncate64);
    char path[4096];
    return fails("truncate", path_of(descriptor, path), 0) ? -1 : real(descriptor, size);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails("rename", to, 0) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return fails("unlink", path, 0) ? -1 : real(path);
}

int rmdir(const char *path) {
    REAL(rmdir);
    return fails("rmdir", path, 0) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mask) {
    REAL(mkdir);
    return access(path, F_OK) && fails("mkdir", path, 1) ? -1 : real(path, mask);
}

int chmod(const char *path, mode_t mask) {
    REAL(chmod);
    return fails("chmod", path, 0) ? -1 : real(path, mask);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(clock_gettime);
    int code = real(which, now);
    if (which == CLOCK_REALTIME) now->tv_sec -= clock_shift;
    return code;
}
