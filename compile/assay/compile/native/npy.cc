#include "npy.h"

#include "plan.h"

namespace assay {

namespace {

struct Name {
  const char *numpy, *dtype;
};
const Name kNames[] = {{"|b1", "bool"},   {"|i1", "int8"},    {"|u1", "uint8"},   {"<i2", "int16"},
                       {"<u2", "uint16"}, {"<f2", "float16"}, {"<i4", "int32"},   {"<u4", "uint32"},
                       {"<f4", "float32"}, {"<i8", "int64"},  {"<u8", "uint64"},  {"<f8", "float64"}};

constexpr size_t kPreamble = 10;  // magic, version, length of the header

int64_t elements(const assay_tensor &tensor) {
  int64_t count = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) count *= tensor.shape[axis];
  return count;
}

}  // namespace

bool read_npy(const char *path, Memory &memory, assay_tensor &tensor) {
  File file;
  if (!file.open(path)) return false;
  const char *data = file.data();
  if (file.size() < kPreamble || memcmp(data, "\x93NUMPY\x01", 7) != 0) return fail("%s is no .npy file.", path);
  const size_t length = static_cast<unsigned char>(data[8]) + 256u * static_cast<unsigned char>(data[9]);
  char header[4096];
  if (length >= sizeof header || kPreamble + length > file.size()) return fail("%s is damaged.", path);
  memcpy(header, data + kPreamble, length);
  header[length] = 0;
  tensor = {};
  const char *kind = strstr(header, "'descr': '"), *shape = strstr(header, "'shape': (");
  for (const Name &each : kNames)
    if (kind != nullptr && strncmp(kind + 10, each.numpy, 3) == 0) tensor.dtype = each.dtype;
  if (tensor.dtype == nullptr) return fail("%s has a dtype that this runtime does not take.", path);
  if (shape == nullptr || strstr(header, "'fortran_order': False") == nullptr)
    return fail("%s is not in the order of C.", path);
  for (const char *at = shape + 10; *at != ')' && *at != 0;) {
    char *end = nullptr;
    const long long size = strtoll(at, &end, 10);
    if (end == at || size < 0 || tensor.rank == ASSAY_MAX_RANK) return fail("%s has a shape that is none.", path);
    tensor.shape[tensor.rank++] = size;
    at = end + strspn(end, ", ");
  }
  const size_t bytes = static_cast<size_t>(elements(tensor)) * item_bytes(tensor.dtype);
  if (kPreamble + length + bytes > file.size()) return fail("%s is cut off.", path);
  tensor.data = memory.room(bytes);
  memcpy(tensor.data, data + kPreamble + length, bytes);
  return true;
}

bool write_npy(const char *path, const assay_tensor &tensor) {
  const char *kind = nullptr;
  for (const Name &each : kNames)
    if (strcmp(each.dtype, tensor.dtype) == 0) kind = each.numpy;
  char header[512];
  int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (", kind);
  for (int axis = 0; axis < tensor.rank; ++axis)
    used += snprintf(header + used, sizeof header - static_cast<size_t>(used), "%lld,", static_cast<long long>(tensor.shape[axis]));
  used += snprintf(header + used, sizeof header - static_cast<size_t>(used), "), }");
  // The data begin at a multiple of 64.
  const size_t length = rounded_up(kPreamble + static_cast<size_t>(used) + 1, kAlignment) - kPreamble;
  memset(header + used, ' ', length - static_cast<size_t>(used) - 1);
  header[length - 1] = '\n';
  const unsigned char preamble[kPreamble] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<unsigned char>(length % 256),
                                             static_cast<unsigned char>(length / 256)};
  FILE *stream = fopen(path, "wb");
  if (stream == nullptr) return fail("%s cannot be written.", path);
  const size_t bytes = static_cast<size_t>(elements(tensor)) * item_bytes(tensor.dtype);
  bool good = fwrite(preamble, 1, kPreamble, stream) == kPreamble && fwrite(header, 1, length, stream) == length &&
              fwrite(tensor.data, 1, bytes, stream) == bytes;
  good = fclose(stream) == 0 && good;
  return good || fail("%s cannot be written.", path);
}

}  // namespace assay
