// The only file that knows Python: argument types state dtype, rank and order; no logic.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "encoder.h"
#include "model.h"
#include "sentencepiece.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace inferd {
namespace {

template <class T, int Dims = 1>
using Array = nb::ndarray<const T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
template <class T, int Dims = 1>
using Output = nb::ndarray<T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;

template <class A>
auto span_of(const A& array) {
    return std::span(array.data(), array.size());
}

void step(Model& model, Array<int32_t> token_ids, Array<int32_t> query_starts, Array<int32_t> context_lens,
          Array<int32_t> adapter_ids, Array<int32_t, 2> block_tables, Array<int32_t, 2> block_copies, Array<int32_t> logit_rows,
          Array<float> temperature, Array<int32_t> top_k, Array<float> top_p, Array<float> min_p, Array<float> typical_p,
          Array<uint64_t> seed, Array<int64_t> draw_index, Array<float> repetition_penalty,
          Array<float> frequency_penalty, Array<float> presence_penalty, Array<int32_t> target,
          Array<int32_t> num_logprobs, Array<int32_t> penalty_starts, Array<int32_t> penalty_ids,
          Array<int32_t> penalty_counts, Array<int32_t> bias_starts, Array<int32_t> bias_ids, Array<float> bias_values,
          Array<int32_t> mask_index, Array<uint32_t, 2> allowed_masks, Output<int32_t> out_ids,
          Output<float> out_logprobs, Output<int32_t> out_ranks, Output<int32_t, 2> out_top_ids,
          Output<float, 2> out_top_logprobs, Output<float, 2> out_logits) {
    Batch batch{};
    batch.token_ids = span_of(token_ids);
    batch.query_starts = span_of(query_starts);
    batch.context_lens = span_of(context_lens);
    batch.adapter_ids = span_of(adapter_ids);
    batch.block_tables = span_of(block_tables);
    batch.max_num_blocks = (ptrdiff_t)block_tables.shape(1);
    batch.block_copies = span_of(block_copies);
    batch.logit_rows = span_of(logit_rows);
    batch.temperature = span_of(temperature);
    batch.top_k = span_of(top_k);
    batch.top_p = span_of(top_p);
    batch.min_p = span_of(min_p);
    batch.typical_p = span_of(typical_p);
    batch.seed = span_of(seed);
    batch.draw_index = span_of(draw_index);
    batch.repetition_penalty = span_of(repetition_penalty);
    batch.frequency_penalty = span_of(frequency_penalty);
    batch.presence_penalty = span_of(presence_penalty);
    batch.target = span_of(target);
    batch.num_logprobs = span_of(num_logprobs);
    batch.penalty_starts = span_of(penalty_starts);
    batch.penalty_ids = span_of(penalty_ids);
    batch.penalty_counts = span_of(penalty_counts);
    batch.bias_starts = span_of(bias_starts);
    batch.bias_ids = span_of(bias_ids);
    batch.bias_values = span_of(bias_values);
    batch.mask_index = span_of(mask_index);
    batch.allowed_masks = span_of(allowed_masks);
    const StepOutput out{span_of(out_ids), span_of(out_ranks), span_of(out_top_ids), span_of(out_logprobs),
                         span_of(out_top_logprobs), (ptrdiff_t)out_top_ids.shape(1), span_of(out_logits)};
    nb::gil_scoped_release release;
    model.step(batch, out);
}

}  // namespace
}  // namespace inferd

NB_MODULE(_native, m) {
    using namespace inferd;
    m.def("isa", [] { return std::string(kernels().name); });
    m.def("available_isas", [] { return std::string(available_isas()); });
    m.def("uniform", &uniform, "seed"_a, "index"_a);

    nb::class_<RopeSpec>(m, "RopeSpec")
        .def("__init__", [](RopeSpec* self, int dims, float magnitude, std::vector<float> inv_freq) {
            new (self) RopeSpec{dims, magnitude, std::move(inv_freq)};
        }, "dims"_a, "magnitude"_a, "inv_freq"_a);
    nb::class_<LayerSpec>(m, "LayerSpec")
        .def("__init__", [](LayerSpec* self, int window, int rope) { new (self) LayerSpec{window, rope}; }, "window"_a, "rope"_a);
    nb::class_<ModelSpec>(m, "ModelSpec")
        .def(nb::init<>())
        .def_rw("vocab_size", &ModelSpec::vocab_size)
        .def_rw("hidden_size", &ModelSpec::hidden_size)
        .def_rw("ffn_size", &ModelSpec::ffn_size)
        .def_rw("num_heads", &ModelSpec::num_heads)
        .def_rw("num_kv_heads", &ModelSpec::num_kv_heads)
        .def_rw("head_dim", &ModelSpec::head_dim)
        .def_rw("layers", &ModelSpec::layers)
        .def_rw("ropes", &ModelSpec::ropes)
        .def_rw("norm_eps", &ModelSpec::norm_eps)
        .def_rw("attention_scale", &ModelSpec::attention_scale)
        .def_rw("attention_soft_cap", &ModelSpec::attention_soft_cap)
        .def_rw("logit_soft_cap", &ModelSpec::logit_soft_cap)
        .def_rw("embedding_scale", &ModelSpec::embedding_scale)
        .def_prop_rw("activation", [](const ModelSpec& s) { return (int)s.activation; },
                     [](ModelSpec& s, int a) { s.activation = (Activation)a; })
        .def_rw("qkv_bias", &ModelSpec::qkv_bias)
        .def_rw("qk_norm", &ModelSpec::qk_norm)
        .def_rw("post_norms", &ModelSpec::post_norms)
        .def_rw("tied_head", &ModelSpec::tied_head);
    nb::class_<Limits>(m, "Limits")
        .def("__init__",
             [](Limits* self, int num_blocks, int block_size, int max_num_batched_tokens, int max_num_seqs,
                int max_model_len, int num_threads, int kv_type) {
                 new (self) Limits{num_blocks,    block_size,  max_num_batched_tokens, max_num_seqs,
                                   max_model_len, num_threads, (KvType)kv_type};
             },
             "num_blocks"_a, "block_size"_a, "max_num_batched_tokens"_a, "max_num_seqs"_a, "max_model_len"_a,
             "num_threads"_a, "kv_type"_a);
    nb::class_<SentencePiece>(m, "SentencePiece")
        .def("__init__",
             [](SentencePiece* self, nb::bytes text, Array<int64_t> ends, Array<float> scores, Array<int32_t> types, int unknown_id) {
                 new (self) SentencePiece(std::string(text.c_str(), text.size()), {ends.data(), ends.data() + ends.size()},
                                          {scores.data(), scores.data() + scores.size()},
                                          {types.data(), types.data() + types.size()}, unknown_id);
             },
             "text"_a, "ends"_a, "scores"_a, "types"_a, "unknown_id"_a)
        .def("encode", &SentencePiece::encode, "text"_a, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Model>(m, "Model")
        .def(nb::init<ModelSpec, Limits>(), "spec"_a, "limits"_a)
        // keep_alive: the embedding is read from the caller's memory
        .def("set_embedding",
             [](Model& self, int type, Array<uint8_t, 2> rows) { self.set_embedding(type, rows.data(), rows.shape(1), rows.shape(0)); },
             "type"_a, "rows"_a, nb::keep_alive<1, 3>())
        .def("add_matrix",
             [](Model& self, const std::string& name, int type, Array<uint8_t, 2> rows, int num_cols) {
                 nb::gil_scoped_release release;
                 self.add_matrix(name, type, rows.data(), rows.shape(1), (int)rows.shape(0), num_cols);
             },
             "name"_a, "type"_a, "rows"_a, "num_cols"_a)
        .def("add_vector", [](Model& self, const std::string& name, Array<float> values) { self.add_vector(name, span_of(values)); },
             "name"_a, "values"_a)
        .def("finish", &Model::finish)
        .def("add_adapter", &Model::add_adapter)
        .def("add_adapter_matrix",
             [](Model& self, int id, int layer, int target, Array<float, 2> a, Array<float, 2> b, float scale) {
                 nb::gil_scoped_release release;
                 self.add_adapter_matrix(id, layer, target, span_of(a), span_of(b), (int)a.shape(0), scale);
             },
             "id"_a, "layer"_a, "target"_a, "a"_a, "b"_a, "scale"_a)
        .def("remove_adapter", &Model::remove_adapter, "id"_a)
        .def("step", &step)
        .def_prop_ro("num_packed_bytes", &Model::num_packed_bytes);

    nb::class_<Encoder>(m, "Encoder")
        .def("__init__",
             [](Encoder* self, int vocab_size, int hidden_size, int ffn_size, int num_heads, int num_layers,
                int max_position, int num_types, float norm_eps, int activation, std::vector<std::pair<int, int>> heads,
                int max_num_tokens, int num_threads) {
                 EncoderSpec spec{vocab_size, hidden_size, ffn_size, num_heads,                 num_layers, max_position,
                                  num_types,  norm_eps,    (RowActivation)activation, {}};
                 for (auto [size, act] : heads) spec.heads.push_back({size, act});
                 new (self) Encoder(std::move(spec), max_num_tokens, num_threads);
             },
             "vocab_size"_a, "hidden_size"_a, "ffn_size"_a, "num_heads"_a, "num_layers"_a, "max_position"_a,
             "num_types"_a, "norm_eps"_a, "activation"_a, "heads"_a, "max_num_tokens"_a, "num_threads"_a)
        // keep_alive: tables are read from the caller's memory
        .def("set_table",
             [](Encoder& self, const std::string& name, int type, Array<uint8_t, 2> rows) {
                 self.set_table(name, type, rows.data(), rows.shape(1), rows.shape(0));
             },
             "name"_a, "type"_a, "rows"_a, nb::keep_alive<1, 4>())
        .def("add_matrix",
             [](Encoder& self, const std::string& name, int type, Array<uint8_t, 2> rows, int num_cols, bool in_pairs) {
                 nb::gil_scoped_release release;
                 self.add_matrix(name, type, rows.data(), rows.shape(1), (int)rows.shape(0), num_cols, in_pairs);
             },
             "name"_a, "type"_a, "rows"_a, "num_cols"_a, "in_pairs"_a)
        .def("add_vector", [](Encoder& self, const std::string& name, Array<float> values) { self.add_vector(name, span_of(values)); },
             "name"_a, "values"_a)
        .def("finish", &Encoder::finish)
        .def("encode",
             [](Encoder& self, Array<int32_t> token_ids, Array<int32_t> type_ids, Array<int32_t> starts, int pooling,
                Output<float, 2> out) {
                 nb::gil_scoped_release release;
                 self.encode({span_of(token_ids), span_of(type_ids), span_of(starts), (Pooling)pooling}, span_of(out));
             },
             "token_ids"_a, "type_ids"_a, "starts"_a, "pooling"_a, "out"_a)
        .def_prop_ro("num_packed_bytes", &Encoder::num_packed_bytes);
}
