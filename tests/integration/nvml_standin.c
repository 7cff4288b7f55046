/* A stand-in for NVIDIA's management library: two devices that answer what the agent asks, so that the
 * real binding code runs on machines without a GPU. Only what is asked is here. */
#include <stdio.h>
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

static const char *names[] = {"NVIDIA A100-SXM4-80GB", "Tesla V100-SXM2-16GB", "NVIDIA GeForce RTX 4090"};
static const unsigned long long gibibytes[] = {80, 16, 24};
#define COUNT 3

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { return result == SUCCESS ? "Success" : "Stand-in error"; }

int nvmlDeviceGetCount_v2(unsigned int *count) { *count = COUNT; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
  if (index >= COUNT) return INVALID_ARGUMENT;
  *device = (void *)(unsigned long)(index + 1);
  return SUCCESS;
}

static int index_of(void *device) { return (int)(unsigned long)device - 1; }

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
  if (length <= strlen(names[index_of(device)])) return INSUFFICIENT_SIZE;
  strcpy(name, names[index_of(device)]);
  return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
  snprintf(uuid, length, "GPU-0000000%d-aaaa-bbbb-cccc-dddddddddddd", index_of(device));
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  memory->total = gibibytes[index_of(device)] << 30;
  memory->used = 1ULL << 30;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
  if (index_of(device) == 2) return NOT_SUPPORTED; /* as cards for desktops may answer */
  rates->gpu = 40 + (unsigned)index_of(device);
  rates->memory = 5;
  return SUCCESS;
}
