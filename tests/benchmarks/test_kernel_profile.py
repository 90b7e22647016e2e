import pytest

from benchmarks.kernel_profile import by_class, class_of, longest


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT", "matrix products"),
        ("nvjet_sm90_tst_192x192_64x3_2x1_v_bz_coopB_splitK_NTN", "matrix products"),
        ("void cudnn::fusion::compute_dot_do_o_specialized<true, 64>(void const*, void const*, void*", "attention"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas", "matrix products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", "sums of split products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits>", "attention"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimiser"),
        ("triton_red_fused_native_layer_norm_backward_3", "norms and other sums, compiled"),
        ("triton_poi_fused_gelu_gelu_backward_12", "element by element, compiled"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::AUnaryFunctor>", "other kernels"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, expected: str):
    assert class_of(kernel) == expected


def test_time_per_step_by_class_and_without_kernels():
    events = [
        {"name": "nvjet_b", "ts": 130.0, "dur": 50.0},
        {"name": "nvjet_a", "ts": 0.0, "dur": 100.0},
        {"name": "Memset", "ts": 90.0, "dur": 20.0},  # beside the product: no idle time between them
    ]
    assert by_class(events, 2) == {"copies": 0.010, "matrix products": 0.075, "idle": 0.010}
    assert by_class([], 2) == {}
    assert longest(events, 2, most=1) == [("nvjet_a", 0.5, 0.05)]
