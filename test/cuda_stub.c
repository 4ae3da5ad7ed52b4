/* libcuda.so.1 of a machine without a GPU: what lighttrack_ros/runtime/cuda.py calls, in host memory, at once.
 * An argument that did not arrive as cuda.h has it gives an error. DRIVER is the CUDA that it knows, e.g. 12060. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *Handle;
typedef uint64_t Address;
enum { OK = 0, INVALID = 1, NOT_FOUND = 500 };
static char context, stream, graph, executable, event;
#define ONLY(condition) return (condition) ? OK : INVALID

int cuInit(unsigned flags) { ONLY(flags == 0); }
int cuDriverGetVersion(int *version) { *version = DRIVER; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; ONLY(ordinal == 0); }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stub", size); ONLY(size > 64 && device == 7); }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 18 ? 1 : attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    ONLY(*value >= 0 && device == 7);
}
int cuDevicePrimaryCtxRetain(Handle *given, int device) { *given = &context; ONLY(device == 7); }
int cuDevicePrimaryCtxRelease_v2(int device) { ONLY(device == 7); }
int cuCtxPushCurrent_v2(Handle given) { ONLY(given == &context); }
int cuCtxPopCurrent_v2(Handle *given) { *given = &context; return OK; }
int cuMemAlloc_v2(Address *address, size_t size) { *address = (Address)malloc(size); return OK; }
int cuMemFree_v2(Address address) { free((void *)address); return OK; }
int cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
    *pointer = memset(malloc(size), 0xA5, size);
    ONLY(flags == 2);
}
int cuMemFreeHost(void *pointer) { free(pointer); return OK; }
int cuMemHostGetDevicePointer_v2(Address *address, void *pointer, unsigned flags) {
    *address = (Address)pointer;
    ONLY(flags == 0);
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, Handle on) {
    memcpy((void *)to, from, size);
    ONLY(on == &stream);
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, Handle on) {
    memcpy(to, (void *)from, size);
    ONLY(on == &stream);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, Handle on) {
    memcpy((void *)to, (void *)from, size);
    ONLY(on == &stream);
}
int cuStreamCreate(Handle *given, unsigned flags) { *given = &stream; ONLY(flags == 1); }
int cuStreamDestroy_v2(Handle given) { ONLY(given == &stream); }
int cuStreamSynchronize(Handle given) { ONLY(given == &stream); }
int cuStreamBeginCapture_v2(Handle given, int mode) { ONLY(given == &stream && mode == 1); }
int cuStreamEndCapture(Handle given, Handle *recorded) { *recorded = &graph; ONLY(given == &stream); }
int cuGraphInstantiateWithFlags(Handle *made, Handle recorded, unsigned long long flags) {
    *made = &executable;
    ONLY(recorded == &graph && flags == 0);
}
int cuGraphDestroy(Handle given) { ONLY(given == &graph); }
int cuGraphLaunch(Handle given, Handle on) { ONLY(given == &executable && on == &stream); }
int cuGraphExecDestroy(Handle given) { ONLY(given == &executable); }
int cuEventCreate(Handle *given, unsigned flags) { *given = &event; ONLY(flags == 0); }
int cuEventRecord(Handle given, Handle on) { ONLY(given == &event && on == &stream); }
int cuEventElapsedTime(float *milliseconds, Handle start, Handle end) {
    *milliseconds = 2.5f;
    ONLY(start == &event && end == &event);
}
int cuEventDestroy_v2(Handle given) { ONLY(given == &event); }

/* The newest function of that name that the caller and this driver know. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    static void *self;
    char versioned[128];
    if (!self) self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    (void)flags;
    if (found) *found = 1;
    *function = NULL;
    if (version > DRIVER) return NOT_FOUND;
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *function = dlsym(self, versioned);
    if (!*function) *function = dlsym(self, name);
    if (found) *found = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
