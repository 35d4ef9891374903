// Attention as a node of libtorch's autograd graph. What it computes is in Rust (src/pass.rs): it is called through pointers, and
// everything here is about tensors, which libtorch allocates, and about what the backward pass needs of the forward pass.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// These four are src/ffi.rs's, field by field. Where a query, key or value lies, or its gradient:
struct Part {
  float* data;
  int64_t row;
  int64_t token;
};

struct Call {
  int64_t rows, tokens, heads, size;
  Part query, key, value;
  const float* bias;
  const int64_t* starts;
  uint64_t seed;
  int64_t first_row;
  int64_t drops;
  float* output;
  float* sums;
  uint64_t* kept;
  const float* gradient;
  Part query_gradient, key_gradient, value_gradient;
  float* scratch;
  int64_t scratch_each;
  int64_t threads;
};
static_assert(sizeof(Call) == 34 * 8, "src/ffi.rs has as many fields");

struct Functions {
  int64_t (*scratch)(int64_t tokens, int64_t size, bool backward);
  void (*forward)(const Call*);
  void (*backward)(const Call*);
};

struct Options {
  int64_t heads;
  int64_t width;
  uint64_t seed;
  int64_t first_row;
  int64_t drops;
  const Functions* functions;
};

// What is no input with a gradient: how the rows lie, with one of the two tensors or none, and the options.
struct Rest {
  Options options;
  at::Tensor bias, starts;
};

// Queries, keys and values: three tensors, or parts of one [rows, tokens, 3 * heads * size].
std::array<Part, 3> parts(const variable_list& all) {
  auto of = [](const at::Tensor& tensor, int64_t offset) {
    return Part{tensor.data_ptr<float>() + offset, tensor.stride(0), tensor.stride(1)};
  };
  if (all.size() == 3) return {of(all[0], 0), of(all[1], 0), of(all[2], 0)};
  const int64_t width = all[0].size(2) / 3;
  return {of(all[0], 0), of(all[0], width), of(all[0], 2 * width)};
}

class Attention : public torch::autograd::Function<Attention> {
  static Call call(const variable_list& all, const Rest& rest, bool backward, at::Tensor& scratch) {
    const auto& options = rest.options;
    const bool packed = rest.starts.defined();
    Call call{};
    call.rows = packed ? rest.starts.numel() - 1 : all[0].size(0);
    call.tokens = packed ? options.width : all[0].size(1);
    call.heads = options.heads;
    call.size = all[0].size(2) / (all.size() == 3 ? 1 : 3) / options.heads;
    const auto lie = parts(all);
    call.query = lie[0], call.key = lie[1], call.value = lie[2];
    call.bias = rest.bias.defined() ? rest.bias.data_ptr<float>() : nullptr;
    call.starts = packed ? rest.starts.data_ptr<int64_t>() : nullptr;
    call.seed = options.seed;
    call.first_row = options.first_row;
    call.drops = options.drops;
    // A thread is worth starting for some 0.1 ms of work.
    const int64_t tokens = all[0].size(0) * all[0].size(1);
    const int64_t worth = 1 + static_cast<int64_t>(4e-6 * tokens * call.tokens * call.heads * call.size);
    call.threads = std::max<int64_t>(1, std::min<int64_t>({at::get_num_threads(), call.rows * call.heads, worth}));
    call.scratch_each = options.functions->scratch(call.tokens, call.size, backward);
    scratch = at::zeros({call.threads * call.scratch_each}, all[0].options());
    call.scratch = scratch.data_ptr<float>();
    return call;
  }

 public:
  // libtorch finds inputs in a TensorList, not in a vector.
  static at::Tensor forward(AutogradContext* context, at::TensorList given, Rest rest) {
    const auto& options = rest.options;
    variable_list all;
    for (const auto& one : given) all.push_back(one.contiguous());
    if (rest.bias.defined()) rest.bias = rest.bias.contiguous();
    at::Tensor scratch;
    Call call = Attention::call(all, rest, false, scratch);
    auto output = at::empty({all[0].size(0), all[0].size(1), call.heads * call.size}, all[0].options());
    auto sums = at::empty({call.rows, call.heads, call.tokens, 2}, all[0].options());
    at::Tensor kept;
    if (call.drops > 0) {
      kept = at::empty({call.rows, call.heads, call.tokens, (call.tokens + 63) / 64}, all[0].options().dtype(at::kLong));
      call.kept = reinterpret_cast<uint64_t*>(kept.data_ptr<int64_t>());
    }
    call.output = output.data_ptr<float>();
    call.sums = sums.data_ptr<float>();
    options.functions->forward(&call);
    variable_list saved{rest.bias, rest.starts, kept, output, sums};
    saved.insert(saved.end(), all.begin(), all.end());
    context->save_for_backward(saved);
    context->saved_data["heads"] = options.heads;
    context->saved_data["width"] = options.width;
    context->saved_data["drops"] = options.drops;
    context->saved_data["functions"] = reinterpret_cast<int64_t>(options.functions);
    return output;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "attention has no second derivative");
    const auto saved = context->get_saved_variables();
    const auto& kept = saved[2];
    const variable_list all(saved.begin() + 5, saved.end());
    Rest rest{{}, saved[0], saved[1]};
    auto& options = rest.options;
    options.heads = context->saved_data["heads"].toInt();
    options.width = context->saved_data["width"].toInt();
    options.drops = context->saved_data["drops"].toInt();
    options.functions = reinterpret_cast<const Functions*>(context->saved_data["functions"].toInt());
    at::Tensor scratch;
    Call call = Attention::call(all, rest, true, scratch);
    const auto gradient = gradients[0].contiguous();
    call.gradient = gradient.data_ptr<float>();
    call.output = saved[3].data_ptr<float>();
    call.sums = saved[4].data_ptr<float>();
    if (kept.defined()) call.kept = reinterpret_cast<uint64_t*>(kept.data_ptr<int64_t>());
    variable_list made;
    for (const auto& one : all) made.push_back(at::empty_like(one));
    const auto lie = parts(made);
    call.query_gradient = lie[0], call.key_gradient = lie[1], call.value_gradient = lie[2];
    options.functions->backward(&call);
    made.emplace_back();  // for the rest
    return made;
  }
};

at::Tensor tensor(const void* pointer) {
  return pointer ? *static_cast<const at::Tensor*>(pointer) : at::Tensor();
}

bool fits(const at::Tensor& tensor) { return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat; }

void check(const variable_list& all, const Rest& rest) {
  const auto &bias = rest.bias, &starts = rest.starts;
  const int64_t heads = rest.options.heads;
  const auto sizes = all[0].sizes();
  TORCH_CHECK(sizes.size() == 3 && all[0].numel() > 0, "attention is of [rows, tokens, width], none of them 0, not ", sizes);
  const int64_t parts = all.size() == 3 ? heads : 3 * heads;
  TORCH_CHECK(heads > 0 && sizes[2] % parts == 0, "a width of ", sizes[2], " is not that of ", heads, " heads");
  for (const auto& one : all) {
    TORCH_CHECK(fits(one), "attention is for 32-bit floats on the CPU, not ", one.toString());
    TORCH_CHECK(one.sizes() == sizes, "query, key and value differ in shape: ", one.sizes(), " and ", sizes);
  }
  TORCH_CHECK(!bias.defined() || (fits(bias) && bias.numel() == sizes[0] * sizes[1]), "a bias of ", bias.sizes(), " for ", sizes);
  if (!starts.defined()) return;
  TORCH_CHECK(starts.device().is_cpu() && starts.scalar_type() == at::kLong && starts.dim() == 1 && starts.numel() > 0,
              "packed rows begin at 64-bit numbers on the CPU, not ", starts.toString(), " of ", starts.sizes());
  const auto begin = starts.accessor<int64_t, 1>();
  const int64_t rows = starts.numel() - 1;
  TORCH_CHECK(sizes[0] == 1 && begin[0] == 0 && begin[rows] == sizes[1], "packed rows from ", begin[0], " to ", begin[rows],
              " do not fill ", sizes);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t tokens = begin[row + 1] - begin[row];
    TORCH_CHECK(tokens >= 0 && tokens <= rest.options.width, "packed row ", row, " has ", tokens, " of at most ",
                rest.options.width, " tokens");
  }
}

}  // namespace

// Gives a new tensor, or null and in `error` a text that the caller frees (null where there is no memory for it).
extern "C" void* squad_attention_apply(const void* query, const void* key, const void* value, const void* bias,
                                       const void* starts, const Options* options, char** error) {
  try {
    variable_list all{tensor(query)};
    if (key != nullptr) all.insert(all.end(), {tensor(key), tensor(value)});
    Rest rest{*options, tensor(bias), tensor(starts)};
    // Bounds follow from these numbers: nobody shall change them between the check and the backward pass.
    if (rest.starts.defined()) rest.starts = rest.starts.clone(at::MemoryFormat::Contiguous);
    check(all, rest);
    return new at::Tensor(Attention::apply(at::TensorList(all), std::move(rest)));
  } catch (const std::exception& thrown) {
    *error = strdup(thrown.what());
  } catch (...) {
    *error = strdup("an exception of an unknown kind");
  }
  return nullptr;
}
