// Run the model of this folder on zeros from C++, and print the first elements of the outputs:
//   c++ -std=c++17 -Iinclude example.cc -Llib -lassay_runtime -Wl,-rpath,'$ORIGIN/lib' -o example && ./example
#include <algorithm>
#include <cstdio>
#include <exception>

#include "assay.hpp"

int main(int count, char **words) {
  try {
    const std::string folder = count > 1 ? words[1] : ".";
    assay_model *interface = assay_open(folder.c_str(), 0);
    if (interface == nullptr) throw std::runtime_error(assay_error());
    std::vector<assay::Tensor> inputs;
    std::vector<std::vector<char>> memory;
    for (int i = 0; i < assay_input_count(interface); ++i) {
      int64_t shape[ASSAY_MAX_RANK];
      const int rank = assay_input_shape(interface, i, shape);
      size_t bytes = 8;  // of the largest element
      for (int axis = 0; axis < rank; ++axis) {
        if (shape[axis] < 0) shape[axis] = 1;
        bytes *= static_cast<size_t>(shape[axis]);
      }
      memory.emplace_back(bytes);
      inputs.push_back({memory.back().data(), assay_input_dtype(interface, i), {shape, shape + rank}});
    }
    assay_close(interface);
    assay::Model model(folder);
    const std::vector<std::string> names = model.output_names();
    const std::vector<assay::Tensor> outputs = model.run(inputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      std::printf("%s %s [", names[i].c_str(), outputs[i].dtype.c_str());
      int64_t count = 1;
      for (const int64_t size : outputs[i].shape) {
        std::printf(" %lld", static_cast<long long>(size));
        count *= size;
      }
      std::printf(" ]");
      const float *values = static_cast<const float *>(outputs[i].data);
      for (int64_t k = 0; outputs[i].dtype == "float32" && k < std::min<int64_t>(count, 8); ++k)
        std::printf(" %.7g", static_cast<double>(values[k]));
      std::printf("\n");
    }
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
