// A delegate plug-in that plays an Edge TPU, for tests on machines without one. 64-bit Linux.
//
// It takes over every operator called "edgetpu-custom-op". Its answer depends on the whole input: of an output with n
// bytes, byte (sum of all input bytes) mod n is 200 and the others are 0.
//
// STANDIN is a list of faults, separated by commas:
//   absent          no device, and not a word about it      refuse         no device, with a reason
//   refuse-once=F   refuses until file F exists, makes it   stuck          opening never returns
//   segv, ill       dies of that signal while opening       exit=N         ends the process while opening
//   prepare         refuses the graph                       newer=N        refuses the graph: it needs runtime N
//   gone=F          while file F exists, nothing works      delay=MS       each inference takes so long
//   error@N         fails from the Nth inference on         hang@N=S       the Nth inference takes S seconds
//   abort@N, segv@N dies at the Nth inference
// STANDIN_LOG=F: a line for each event. STANDIN_VERSION: what edgetpu_version answers.
// STANDIN_DEVICES=usb=PATH,pci=PATH: what edgetpu_list_devices answers.
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define OWN_OPERATOR "edgetpu-custom-op"

typedef struct Runtime Runtime;
typedef struct Plugin Plugin;

typedef struct { int32_t count, item[]; } Ints;

typedef struct {  // one element of the runtime's array of tensors
  int32_t type;
  uint8_t *bytes;
  Ints *shape;
  float scale;
  int32_t zero_point, allocation;
  size_t size;
  void *not_used_here[2], *owner;
  int32_t handle;
  uint8_t stale, variable;
  int32_t quantization;
  void *also_not_used[3];
} Value;

typedef struct {
  Ints *in, *out, *between, *scratch;
  void *mine, *builtin;
  const void *blob;
  int32_t blob_size;
  Plugin *plugin;
} Operator;

typedef struct {
  void *(*begin)(Runtime *, const char *, size_t);
  void (*end)(Runtime *, void *);
  int32_t (*plan)(Runtime *, Operator *);
  int32_t (*run)(Runtime *, Operator *);
  void *describe;
  int32_t code;
  const char *name;
  int32_t version;
  void *newer_fields[2];
  uint64_t in_place;
} Kernel;

struct Runtime {
  size_t value_count;
  int32_t (*order)(Runtime *, Ints **);
  Value *values;
  void *state, *resize;
  void (*complain)(Runtime *, const char *, ...);
  void *add;
  int32_t (*look_up)(Runtime *, int32_t, Operator **, Kernel **);
  int32_t (*take_over)(Runtime *, Kernel, const Ints *, Plugin *);
};

struct Plugin {
  void *state;
  int32_t (*prepare)(Runtime *, Plugin *);
  void *copies[3];
  int64_t flags;  // 1: ask the delegate before unknown operators are prepared
  void *newer_fields[17];
  int invocations;
};

static const char *fault(const char *name) {
  static char value[512];
  const char *at = getenv("STANDIN");
  size_t length = strlen(name);
  for (; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
    if (strncmp(at, name, length) || (at[length] && !strchr(",=@", at[length]))) continue;
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at + length, ","), at + length);
    return value;
  }
  return NULL;
}

static const char *argument(const char *name) {
  const char *given = fault(name), *equals = given ? strchr(given, '=') : NULL;
  return equals ? equals + 1 : NULL;
}

static int due(const char *name, int invocation, int from_then_on) {
  const char *given = fault(name);
  if (!given || *given != '@') return 0;
  return from_then_on ? invocation >= atoi(given + 1) : invocation == atoi(given + 1);
}

static void note(const char *form, ...) {
  FILE *log = getenv("STANDIN_LOG") ? fopen(getenv("STANDIN_LOG"), "a") : NULL;
  if (!log) return;
  va_list more;
  va_start(more, form);
  vfprintf(log, form, more);
  va_end(more);
  fclose(log);
}

static int gone(void) {
  const char *mark = argument("gone");
  return mark && access(mark, F_OK) == 0;
}

static void pause_for(double seconds) {
  struct timespec span = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&span, NULL);
}

static void *begin(Runtime *runtime, const char *parameters, size_t size) {
  Plugin *plugin;
  (void)runtime, (void)size;
  memcpy(&plugin, parameters, sizeof plugin);
  return plugin;
}

static void end(Runtime *runtime, void *mine) { (void)runtime, (void)mine; }

static int32_t plan(Runtime *runtime, Operator *operator) { return (void)runtime, (void)operator, 0; }

static int32_t run(Runtime *runtime, Operator *operator) {
  int invocation = ++((Plugin *)operator->mine)->invocations;
  if (argument("delay")) pause_for(atof(argument("delay")) / 1000);
  if (due("hang", invocation, 0)) pause_for(atof(argument("hang")));
  if (due("segv", invocation, 0)) raise(SIGSEGV);
  if (due("abort", invocation, 0)) {
    fprintf(stderr, "F driver/usb/usb_driver.cc:1148] transfer in failed. USB transfer error 5\n");
    abort();
  }
  if (due("error", invocation, 1) || gone()) {
    runtime->complain(runtime, "stand-in: the device does not answer");
    return 1;
  }
  uint64_t sum = 0;
  for (int i = 0; i < operator->in->count; i++) {
    const Value *value = &runtime->values[operator->in->item[i]];
    for (size_t at = 0; at < value->size; at++) sum += value->bytes[at];
  }
  for (int i = 0; i < operator->out->count; i++) {
    Value *value = &runtime->values[operator->out->item[i]];
    memset(value->bytes, 0, value->size);
    value->bytes[sum % value->size] = 200;
  }
  return 0;
}

static int32_t prepare(Runtime *runtime, Plugin *plugin) {
  if (fault("newer")) {
    runtime->complain(runtime, "Package requires runtime version (%s), which is newer than this runtime version (13).",
                      argument("newer"));
    return 1;
  }
  if (fault("prepare")) {
    runtime->complain(runtime, "stand-in: the graph is not to its taste");
    return 1;
  }
  Ints *order;
  if (runtime->order(runtime, &order)) return 1;
  Ints *taken = calloc(1, sizeof *taken + sizeof *taken->item * (size_t)order->count);
  for (int i = 0; i < order->count; i++) {
    Operator *operator;
    Kernel *kernel;
    if (runtime->look_up(runtime, order->item[i], &operator, &kernel)) continue;
    if (kernel->name && !strcmp(kernel->name, OWN_OPERATOR)) taken->item[taken->count++] = order->item[i];
  }
  note("took %d of %d operators\n", taken->count, order->count);
  Kernel kernel = {.begin = begin, .end = end, .plan = plan, .run = run, .name = "StandInForEdgeTpu", .version = 1};
  int32_t status = runtime->take_over(runtime, kernel, taken, plugin);
  free(taken);
  return status;
}

static int refuses(void (*report)(const char *)) {
  const char *mark = argument("refuse-once");
  if (fault("absent")) return 1;
  if (mark && access(mark, F_OK)) {
    fclose(fopen(mark, "w"));
  } else if (!fault("refuse") && !gone()) {
    return 0;
  }
  report("stand-in: no device");
  return 1;
}

PUBLIC Plugin *tflite_plugin_create_delegate(char **names, char **values, size_t count, void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++) note("opened with %s=%s\n", names[i], values[i]);
  if (fault("segv") && *fault("segv") != '@') raise(SIGSEGV);
  if (fault("ill")) raise(SIGILL);
  if (fault("exit")) _exit(atoi(argument("exit")));
  while (fault("stuck")) pause_for(1);
  if (refuses(report)) return NULL;
  Plugin *plugin = calloc(1, sizeof *plugin);
  plugin->prepare = prepare;
  plugin->flags = 1;
  return plugin;
}

PUBLIC void tflite_plugin_destroy_delegate(Plugin *plugin) {
  if (plugin) note("put down after %d\n", plugin->invocations);
  free(plugin);
}

PUBLIC const char *edgetpu_version(void) { return getenv("STANDIN_VERSION"); }

typedef struct { int32_t type; char *path; } Listed;

PUBLIC Listed *edgetpu_list_devices(size_t *count) {
  Listed *list = calloc(16, sizeof *list);
  char *text = strdup(getenv("STANDIN_DEVICES") ? getenv("STANDIN_DEVICES") : ""), *rest = text;
  *count = 0;
  for (char *word; (word = strsep(&rest, ",")) && *word;)
    list[(*count)++] = (Listed){strncmp(word, "usb=", 4) == 0, strdup(strchr(word, '=') + 1)};
  free(text);
  return list;
}

PUBLIC void edgetpu_free_devices(Listed *list) { free(list); }
