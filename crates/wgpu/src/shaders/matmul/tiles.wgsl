// Products by tiles in workgroup memory, for GPUs: BM x BN results a workgroup, 4·QM x 4·QN a thread, BK products deep.
// While one slice is multiplied, the next is on its way to registers.
#if HALF
alias P = f16;
#else
alias P = f32;
#end
var<workgroup> tile_a: array<vec4<P>, BK * BM / 4u>;
var<workgroup> tile_b: array<vec4<P>, BK * BN / 4u>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let tile = id.y * ids.x + id.x;
    if (tile >= p.tiles) {
        return;
    }
    let m0 = p.m_first + tile / p.tiles_n * BM;
    let n0 = tile % p.tiles_n * BN;
    let group = id.z % p.groups;
    let split = id.z / p.groups;
    var k = p.k_first + split * p.k_split;
    let k_last = min(k + p.k_split, p.k_end);

    // What this thread brings into the tiles: LA and LB vectors a slice.
#for l 0 LA
    let ia{l} = t + {l}u * THREADS;
#if A_BY_M
    let ka{l} = ia{l} / (BM / 4u);
    let ma{l} = ia{l} % (BM / 4u) * 4u;
#else
    let ma{l} = ia{l} / (BK / 4u);
    let ka{l} = ia{l} % (BK / 4u) * 4u;
#end
    let pa{l} = place_a(m0 + ma{l}, group);
    var ra{l} = load_a(pa{l}, k + ka{l});
#end
#for l 0 LB
    let ib{l} = t + {l}u * THREADS;
#if B_BY_K
    let nb{l} = ib{l} / (BK / 4u);
    let kb{l} = ib{l} % (BK / 4u) * 4u;
#else
    let kb{l} = ib{l} / (BN / 4u);
    let nb{l} = ib{l} % (BN / 4u) * 4u;
#end
    let pb{l} = place_b(n0 + nb{l}, group);
    var rb{l} = load_b(pb{l}, k + kb{l});
#end

    let tx = t % TX;
    let ty = t / TX;
#for i 0 QM
#for r 0 4
#for j 0 QN
    var sum{i}_{r}_{j} = vec4<f32>();
#end
#end
#end

    while (k < k_last) {
#for l 0 LA
#if A_BY_M
        tile_a[ka{l} * (BM / 4u) + ma{l} / 4u] = vec4<P>(ra{l});
#else
#for c 0 4
        tile_a[(ka{l} + {c}u) * (BM / 4u) + ma{l} / 4u][ma{l} % 4u] = P(ra{l}[{c}]);
#end
#end
#end
#for l 0 LB
#if B_BY_K
#for c 0 4
        tile_b[(kb{l} + {c}u) * (BN / 4u) + nb{l} / 4u][nb{l} % 4u] = P(rb{l}[{c}]);
#end
#else
        tile_b[kb{l} * (BN / 4u) + nb{l} / 4u] = vec4<P>(rb{l});
#end
#end
        workgroupBarrier();
        k += BK;
        if (k < k_last) {
#for l 0 LA
            ra{l} = load_a(pa{l}, k + ka{l});
#end
#for l 0 LB
            rb{l} = load_b(pb{l}, k + kb{l});
#end
        }
#if HALF
#for i 0 QM
#for r 0 4
#for j 0 QN
        var part{i}_{r}_{j} = vec4<f16>();
#end
#end
#end
#end
        for (var j = 0u; j < BK; j++) {
#for i 0 QM
            let a{i} = tile_a[j * (BM / 4u) + {i}u * TY + ty];
#end
#for j 0 QN
            let b{j} = tile_b[j * (BN / 4u) + {j}u * TX + tx];
#end
#for i 0 QM
#for r 0 4
#for j 0 QN
#if HALF
            part{i}_{r}_{j} += a{i}[{r}] * b{j};
#else
            sum{i}_{r}_{j} += a{i}[{r}] * b{j};
#end
#end
#end
#end
        }
#if HALF
#for i 0 QM
#for r 0 4
#for j 0 QN
        sum{i}_{r}_{j} += vec4<f32>(part{i}_{r}_{j});
#end
#end
#end
#end
        workgroupBarrier();
    }

#for i 0 QM
#for r 0 4
#for j 0 QN
    store(m0 + ({i}u * TY + ty) * 4u + {r}u, n0 + ({j}u * TX + tx) * 4u, group, split, sum{i}_{r}_{j});
#end
#end
#end
}
