// Products by registers alone, for software adapters, where loads and barriers are what costs: 4·QM x 4 results a thread.
@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let tile = linear(id, ids, t);
    if (tile >= p.tiles) {
        return;
    }
    let m0 = p.m_first + tile / p.tiles_n * (4u * QM);
    let n0 = tile % p.tiles_n * 4u;
    let group = id.z % p.groups;
    let split = id.z / p.groups;
    var k = p.k_first + split * p.k_split;
    let k_last = min(k + p.k_split, p.k_end);
#for i 0 QM
#if A_BY_M
    let pa{i} = place_a(m0 + {i}u * 4u, group);
#else
#for r 0 4
    let pa{i}_{r} = place_a(m0 + {i}u * 4u + {r}u, group);
#end
#end
#for r 0 4
    var sum{i}_{r} = vec4<f32>();
#end
#end
#if B_BY_K
#for c 0 4
    let pb{c} = place_b(n0 + {c}u, group);
#end
#else
    let pb = place_b(n0, group);
#end
    while (k < k_last) {
#if B_BY_K
#for c 0 4
        let column{c} = load_b(pb{c}, k);
#end
#for j 0 4
        let b{j} = vec4<f32>(column0[{j}], column1[{j}], column2[{j}], column3[{j}]);
#end
#else
#for j 0 4
        let b{j} = load_b(pb, k + {j}u);
#end
#end
#for i 0 QM
#if A_BY_M
#for j 0 4
        let a{i}_{j} = load_a(pa{i}, k + {j}u);
#end
#for r 0 4
        sum{i}_{r} += a{i}_0[{r}] * b0 + a{i}_1[{r}] * b1 + a{i}_2[{r}] * b2 + a{i}_3[{r}] * b3;
#end
#else
#for r 0 4
        let a{i}_{r} = load_a(pa{i}_{r}, k);
        sum{i}_{r} += a{i}_{r}.x * b0 + a{i}_{r}.y * b1 + a{i}_{r}.z * b2 + a{i}_{r}.w * b3;
#end
#end
#end
        k += 4u;
    }
#for i 0 QM
#for r 0 4
    store(m0 + {i}u * 4u + {r}u, n0, group, split, sum{i}_{r});
#end
#end
}
