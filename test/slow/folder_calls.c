// Preloaded into a process: counts the calls that change folders under FAULT_UNDER, and ends or fails one of them.
//   FAULT_KILL=rename:3    SIGKILL before the third rename
//   FAULT_EIO=name         removing a path that contains this fails with EIO
//   FAULT_COUNT=file       the number of calls of each kind is written there at the end
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum Kind { RENAME, UNLINK, RMDIR, MKDIR, NUM_KINDS };
static const char* const names[NUM_KINDS] = {"rename", "unlink", "rmdir", "mkdir"};
static atomic_int counts[NUM_KINDS];

/* Returns whether the call is to fail. */
static int meet(enum Kind kind, const char* path) {
  const char* under = getenv("FAULT_UNDER");
  if (!under || !path || strncmp(path, under, strlen(under)) != 0) return 0;
  const int number = atomic_fetch_add(&counts[kind], 1) + 1;
  const char* end = getenv("FAULT_KILL");
  char point[64];
  snprintf(point, sizeof point, "%s:%d", names[kind], number);
  if (end && strcmp(end, point) == 0) kill(getpid(), SIGKILL);
  const char* fails = getenv("FAULT_EIO");
  if (!fails || (kind != UNLINK && kind != RMDIR) || !strstr(path, fails)) return 0;
  errno = EIO;
  return 1;
}

int rename(const char* from, const char* to) {
  static int (*real)(const char*, const char*);
  if (!real) real = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
  return meet(RENAME, to) ? -1 : real(from, to);
}
int unlink(const char* path) {
  static int (*real)(const char*);
  if (!real) real = (int (*)(const char*))dlsym(RTLD_NEXT, "unlink");
  return meet(UNLINK, path) ? -1 : real(path);
}
int rmdir(const char* path) {
  static int (*real)(const char*);
  if (!real) real = (int (*)(const char*))dlsym(RTLD_NEXT, "rmdir");
  return meet(RMDIR, path) ? -1 : real(path);
}
int mkdir(const char* path, mode_t mode) {
  static int (*real)(const char*, mode_t);
  if (!real) real = (int (*)(const char*, mode_t))dlsym(RTLD_NEXT, "mkdir");
  return meet(MKDIR, path) ? -1 : real(path, mode);
}

__attribute__((destructor)) static void tell(void) {
  const char* path = getenv("FAULT_COUNT");
  FILE* file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  for (int kind = 0; kind < NUM_KINDS; kind++) fprintf(file, "%s %d\n", names[kind], atomic_load(&counts[kind]));
  fclose(file);
}
