"""The fixed values in src/key.rs, from the definition in its comment: python3 keys.py"""
import struct
def words(key):
    out=[];ctr=0
    while True:
        s=[0x61707865,0x3320646e,0x79622d32,0x6b206574]+list(struct.unpack('<8I',key))+[ctr&0xffffffff,ctr>>32,0,0]
        x=s[:]
        def qr(a,b,c,d):
            r=lambda v,n:((v<<n)|(v>>(32-n)))&0xffffffff
            x[a]=(x[a]+x[b])&0xffffffff;x[d]=r(x[d]^x[a],16)
            x[c]=(x[c]+x[d])&0xffffffff;x[b]=r(x[b]^x[c],12)
            x[a]=(x[a]+x[b])&0xffffffff;x[d]=r(x[d]^x[a],8)
            x[c]=(x[c]+x[d])&0xffffffff;x[b]=r(x[b]^x[c],7)
        for _ in range(4):
            qr(0,4,8,12);qr(1,5,9,13);qr(2,6,10,14);qr(3,7,11,15)
            qr(0,5,10,15);qr(1,6,11,12);qr(2,7,8,13);qr(3,4,9,14)
        for a,b in zip(x,s): yield (a+b)&0xffffffff
        ctr+=1
def bits(seed,epoch,sample,op):
    w=words(struct.pack('<4Q',seed,epoch,sample,op))
    while True:
        lo=next(w);yield lo|(next(w)<<32)
def below(b,n):
    if n<2:return 0
    t=(2**64-n)%n
    while True:
        p=next(b)*n
        if p%2**64>=t:return p>>64
b=bits(1,2,3,4);print([hex(next(b)) for _ in range(3)])
b=bits(42,0,0,1<<32);o=list(range(10))
for i in range(9,0,-1):
    j=below(b,i+1);o[i],o[j]=o[j],o[i]
print(o)
b=bits(9,9,9,0)
u=(next(b)>>11)*2.0**-53;v=-1+4*((next(b)>>11)*2.0**-53)
print(repr(u),repr(v),below(b,1000))
